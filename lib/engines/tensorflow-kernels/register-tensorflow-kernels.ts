import { tf } from '../../tf.js'
import type { NativeBackend } from '../native.js'
import { type Composition, compositions } from './compositions.js'
import { deviceRunner } from './device-ops.js'

/** Inputs without the absent ones, which TensorFlow.js passes on as `undefined`. */
const kernelFunction =
  (composition: Composition, onDevice: ReturnType<typeof deviceRunner>): tf.KernelFunc =>
  ({ inputs, attrs }) => {
    const results = tf.tidy(
      () => composition(onDevice, inputs as unknown as tf.NamedTensorMap, attrs ?? {}) as unknown as tf.TensorContainerArray
    )
    return results as unknown as tf.TensorInfo
  }

/** Registers the compositions of TensorFlow's ops as kernels of the native engine: for a GPU, and on a CPU to check their semantics. */
export const registerTensorflowKernels = (native: NativeBackend): void => {
  if (tf.getKernel('Linear', 'tensorflow')) return
  const onDevice = deviceRunner(native)
  for (const [kernelName, composition] of Object.entries(compositions))
    tf.registerKernel({ kernelName, backendName: 'tensorflow', kernelFunc: kernelFunction(composition, onDevice) })
}
