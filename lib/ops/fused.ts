import { isRecording, isTraced, operation, pullback } from '../autograd/tape.js'
import { tf } from '../tf.js'
import { slopes } from './gradients.js'
import { hasKernel, type Inputs, runKernel } from './kernel.js'

const given = (inputs: Inputs): ReadonlyArray<readonly [string, tf.Tensor]> =>
  Object.entries(inputs).flatMap(([name, x]) => (x ? [[name, x] as const] : []))

/** The kernel, recorded as one operation: it keeps its inputs, of which the way back is computed anew. */
const differentiable = <T extends tf.Tensor>(
  kernel: string,
  inputs: Inputs,
  attributes: Readonly<Record<string, unknown>>,
  composition: (inputs: Inputs) => T
): T => {
  const present = given(inputs)
  const traced = present.filter(([, x]) => isTraced(x)).map(([name]) => name)
  return operation({
    inputs: Object.fromEntries(present),
    forward: (save) => {
      save(present.map(([, x]) => x))
      return runKernel<T>(kernel, Object.fromEntries(present), attributes)
    },
    backward: ([dy], saved) => {
      const kept = Object.fromEntries(present.map(([name], i) => [name, saved[i]!]))
      const own = slopes[kernel]?.(dy!, kept, attributes, new Set(traced))
      if (own) return own
      const xs = traced.map((name) => kept[name]!)
      const { grads } = pullback(
        () => [composition(kept)],
        xs,
        () => [dy]
      )
      return Object.fromEntries(traced.map((name, i) => [name, () => grads[i] ?? tf.zerosLike(xs[i]!)]))
    }
  })
}

/**
 * One pure function, two ways: the engine's own kernel where it registered one, else a composition of plain ops (which every
 * engine has). Both give the same numbers and gradients: while a gradient is recorded the kernel still runs, and the way back is
 * that of `slopes`, or of the composition on the same inputs. An input that is `undefined` is not given.
 */
export const fused = <T extends tf.Tensor | readonly tf.Tensor[], I extends Inputs>(
  kernel: string,
  inputs: I,
  attributes: Readonly<Record<string, unknown>>,
  composition: (inputs: I) => T
): T => {
  if (!hasKernel(kernel)) return composition(inputs)
  if (isRecording() && given(inputs).some(([, x]) => isTraced(x)))
    return differentiable(kernel, inputs, attributes, composition as (inputs: Inputs) => T & tf.Tensor)
  return runKernel<T>(kernel, inputs, attributes)
}
