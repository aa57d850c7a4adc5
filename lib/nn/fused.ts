import { tf } from '../tf.js'

/**
 * One pure function, two ways: the engine's own kernel where it registered one and no gradient is being recorded,
 * else a composition of plain ops (which every engine has, and which can be differentiated). Both give the same numbers.
 */
export const fused = <T extends tf.Tensor>(
  kernel: string,
  inputs: Readonly<Record<string, tf.Tensor>>,
  attributes: Readonly<Record<string, unknown>>,
  composition: () => T
): T =>
  tf.engine().state.gradientDepth === 0 && tf.getKernel(kernel, tf.getBackend()) !== undefined
    ? (tf.engine().runKernel(kernel, { ...inputs }, attributes as tf.NamedAttrMap) as unknown as T)
    : composition()
