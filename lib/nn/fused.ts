import { tf } from '../tf.js'

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

/**
 * One pure function, two ways: the engine's own kernel where it registered one and no gradient is being recorded,
 * else a composition of plain ops (which every engine has, and which can be differentiated). Both give the same numbers.
 * An input that is `undefined` is not given.
 */
export const fused = <T extends tf.Tensor | readonly tf.Tensor[]>(
  kernel: string,
  inputs: Readonly<Record<string, tf.Tensor | undefined>>,
  attributes: Readonly<Record<string, unknown>>,
  composition: () => T
): T =>
  allowed && tf.engine().state.gradientDepth === 0 && tf.getKernel(kernel, tf.getBackend()) !== undefined
    ? (tf.engine().runKernel(kernel, inputs as tf.NamedTensorMap, attributes as tf.NamedAttrMap) as unknown as T)
    : composition()
