import { nativeBackend, selectEngine } from '../../../../lib/engines/index.js'
import { kernels } from '../../../../lib/engines/kernels/schema.js'
import { compositions } from '../../../../lib/engines/tensorflow-kernels/compositions.js'
import { registerTensorflowKernels } from '../../../../lib/engines/tensorflow-kernels/register-tensorflow-kernels.js'
import { tf } from '../../../../lib/tf.js'

/**
 * Replaces the registered kernels of the native engine by the compositions of TensorFlow's ops, before the tests of a suite, and restores them after the suite.
 * The suite is skipped on other engines.
 */
export const withTensorflowKernels = (): void => {
  let replaced: readonly tf.KernelConfig[] = []
  before(async function () {
    if ((await selectEngine()).name !== 'native') return this.skip()
    const names = new Set([...Object.keys(kernels), ...Object.keys(compositions)])
    replaced = tf.getKernelsForBackend('tensorflow').filter(({ kernelName }) => names.has(kernelName))
    for (const { kernelName } of replaced) tf.unregisterKernel(kernelName, 'tensorflow')
    registerTensorflowKernels(nativeBackend()!)
  })
  after(() => {
    for (const name of Object.keys(compositions)) if (tf.getKernel(name, 'tensorflow')) tf.unregisterKernel(name, 'tensorflow')
    for (const kernel of replaced) tf.registerKernel(kernel)
  })
}
