import { tf } from '../tf.js'

/** Inputs of a kernel by name; an absent input is `undefined`. */
export type KernelInputs = Readonly<Record<string, tf.Tensor | undefined>>

/** Module-level because `fused` is called from every layer; only `withoutKernels` sets the flag, for the time of one synchronous call. */
let kernelsEnabled = true

/** Runs `f` on compositions of plain ops alone, to compare kernels with compositions. `f` must be synchronous. */
export const withoutKernels = <A>(f: () => A): A => {
  const before = kernelsEnabled
  kernelsEnabled = false
  try {
    return f()
  } finally {
    kernelsEnabled = before
  }
}

/** Whether the present engine has this library's kernel of that name, and kernels are enabled. */
export const hasKernel = (kernel: string): boolean => kernelsEnabled && tf.getKernel(kernel, tf.getBackend()) !== undefined

/**
 * Whether the kernels are compositions of TensorFlow's own ops (lib/engines/tensorflow-kernels). These keep packed numbers of a cache in
 * float32 tensors, because a GPU has few ops for int32.
 */
export const usesTensorflowOps = (): boolean => hasKernel('GatherRows')

/** Runs a kernel that the engine has (`hasKernel`). The kernel records no gradient; `fused` does. */
export const runKernel = <T extends tf.Tensor | readonly tf.Tensor[]>(
  kernel: string,
  inputs: KernelInputs,
  attributes: Readonly<Record<string, unknown>>
): T => tf.engine().runKernel(kernel, inputs as tf.NamedTensorMap, attributes as tf.NamedAttrMap) as unknown as T
