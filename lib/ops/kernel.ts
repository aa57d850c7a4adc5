import { tf } from '../tf.js'

/** Inputs of a kernel by name; one that is `undefined` is not given. */
export type Inputs = Readonly<Record<string, tf.Tensor | undefined>>

let allowed = true

/** What `f` gives on compositions alone: to compare kernels with them. */
export const withoutKernels = <A>(f: () => A): A => {
  const before = allowed
  allowed = false
  try {
    return f()
  } finally {
    allowed = before
  }
}

/** Whether the present engine has that kernel of our own, and it may run. */
export const hasKernel = (kernel: string): boolean => allowed && tf.getKernel(kernel, tf.getBackend()) !== undefined

/** What that kernel gives, which the engine must have. No gradient goes through it, unless what runs it sees to that. */
export const runKernel = <T extends tf.Tensor | readonly tf.Tensor[]>(
  kernel: string,
  inputs: Inputs,
  attributes: Readonly<Record<string, unknown>>
): T => tf.engine().runKernel(kernel, inputs as tf.NamedTensorMap, attributes as tf.NamedAttrMap) as unknown as T
