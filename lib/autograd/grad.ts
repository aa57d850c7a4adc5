import { fused } from '../ops/fused.js'
import { disposeParams, mapParams, namedParameters, parameterGroups } from '../params.js'
import { tf } from '../tf.js'
import { vjp } from './tape.js'

/** A loss and its gradient, a tree of the structure of the parameters. The caller owns both. */
export interface ValueAndGrad<P> {
  readonly value: tf.Scalar
  readonly grads: P
}

/**
 * Value and gradient of a scalar loss; the gradient is a tree of the same structure as `params`.
 * A leaf that does not reach the loss has a gradient of zeros (PyTorch: `None`).
 * Throws a `RangeError` when the loss is not a scalar.
 *
 * `const { value, grads } = valueAndGrad((p) => loss(model.apply(p)(x)))(params)`
 *
 * Absent leaves of a partial tree stay absent, and no gradient of a frozen part is computed:
 * `valueAndGrad((p) => loss(model.apply(combine(p, frozen))(x)))(trained)` with `[trained, frozen] = partition(chosen)(params)`.
 */
export const valueAndGrad =
  <P>(loss: (params: P) => tf.Scalar) =>
  (params: P): ValueAndGrad<P> => {
    const leaves = namedParameters(params)
    const replaced = (by: ReadonlyMap<string, tf.Tensor>): P => mapParams((_, path) => by.get(path) as tf.Tensor)(params)
    const { value, grads } = tf.tidy(() => {
      const xs = leaves.map(([, tensor]) => tensor)
      const pulled = vjp(
        () => [loss(params)],
        xs,
        ([value]) => {
          if (value!.size !== 1) throw new RangeError(`valueAndGrad: the loss must be a scalar, got shape [${value!.shape}]`)
          return [tf.onesLike(value!)]
        }
      )
      return { value: pulled.values[0]!, grads: pulled.grads.map((g, i) => g ?? tf.zerosLike(xs[i]!)) }
    })
    return { value: value as tf.Scalar, grads: replaced(new Map(leaves.map(([path], i) => [path, grads[i]!]))) }
  }

/** Takes the gradient of the parameter at a path, and owns it. */
export type GradientTaker = (path: string, gradient: tf.Tensor) => void

/**
 * `valueAndGrad` that hands over each leaf of the gradient as soon as it is complete, while the backward pass goes on: the last layers first,
 * those that do not reach the loss at the end. Returns the value.
 */
const valueAndEachGrad =
  <P>(loss: (params: P) => tf.Scalar, take: GradientTaker) =>
  (params: P): tf.Scalar => {
    const leaves = namedParameters(params)
    return tf.tidy(() => {
      const missing = new Map(leaves)
      const pulled = vjp(
        () => [loss(params)],
        leaves.map(([, tensor]) => tensor),
        ([value]) => [tf.onesLike(value!)],
        (i, gradient) => {
          const [path] = leaves[i]!
          missing.delete(path)
          take(path, gradient)
        }
      )
      for (const [path, tensor] of missing) take(path, tf.zerosLike(tensor))
      return pulled.values[0] as tf.Scalar
    })
  }

/** `valueAndGrad` of a loss with auxiliary data, `[loss, aux]` (terms to log, a state for the next step). Source: JAX's `has_aux`. */
export const valueGradAndAux =
  <P, A>(loss: (params: P) => readonly [loss: tf.Scalar, aux: A]) =>
  (params: P): ValueAndGrad<P> & { readonly aux: A } => {
    let aux: A | undefined
    const found = valueAndGrad((p: P) => {
      const [value, more] = loss(p)
      aux = more
      return value
    })(params)
    return { ...found, aux: aux as A }
  }

/** The sum of both, which disposes its inputs. */
const addGradients = <P>(a: ValueAndGrad<P>, b: ValueAndGrad<P>): ValueAndGrad<P> => {
  const more = new Map(namedParameters(b.grads))
  const sums: Record<string, tf.Tensor> = {}
  for (const group of parameterGroups(a.grads)) {
    const pairs = group.map(([path, gradient]) => [gradient, more.get(path)!] as const)
    const inputs = Object.fromEntries(pairs.flatMap(([x, y], i) => [[`a ${i}`, x], [`b ${i}`, y]])) // biome-ignore format: one line
    const results = tf.tidy(() => fused('AddPairs', inputs, {}, () => pairs.map(([x, y]) => x.add(y))) as tf.Tensor[])
    for (const [i, [path]] of group.entries()) sums[path] = results[i]!
    tf.dispose(pairs.flat())
  }
  const value = a.value.add<tf.Scalar>(b.value)
  tf.dispose([a.value, b.value])
  return { value, grads: mapParams((_, path) => sums[path]!)(a.grads) }
}

/** The sum of the values and gradients of losses, one after another; undefined without a loss. */
const summedGradients = <P>(losses: ReadonlyArray<(params: P) => tf.Scalar>, params: P): ValueAndGrad<P> | undefined => {
  let sum: ValueAndGrad<P> | undefined
  try {
    for (const loss of losses) {
      const next = valueAndGrad(loss)(params)
      sum = sum ? addGradients(sum, next) : next
    }
    return sum
  } catch (error) {
    disposeParams([sum?.value, sum?.grads])
    throw error
  }
}

/** The loss of each batch as its part of the weighted mean. */
const weightedLosses = <A, P>(
  batches: readonly A[],
  weightOf: (batch: A) => number,
  lossOf: (batch: A) => (params: P) => tf.Scalar,
  total: number
): ReadonlyArray<(params: P) => tf.Scalar> => {
  if (!(total > 0)) throw new RangeError(`accumulate: the weights of ${batches.length} batches sum to ${total}`)
  return batches.map((batch) => {
    const [loss, weight] = [lossOf(batch), weightOf(batch)]
    return (params) => loss(params).mul<tf.Scalar>(weight / total)
  })
}

/**
 * Gradient accumulation: the weighted mean of the losses of several batches, and its gradient. Memory holds the sum and the gradient of
 * one batch. With the number of supervised tokens as the weight of a batch, the result equals that of one large batch.
 * `total` is the sum of the weights, a larger one where other workers have further batches: their results sum to the weighted mean.
 * Throws a `RangeError` unless the weights have a positive sum.
 */
export const accumulate = <A, P>(
  batches: readonly A[],
  weightOf: (batch: A) => number,
  lossOf: (batch: A) => (params: P) => tf.Scalar,
  total = batches.reduce((sum, batch) => sum + weightOf(batch), 0)
): ((params: P) => ValueAndGrad<P>) => {
  const losses = weightedLosses(batches, weightOf, lossOf, total)
  return (params) => summedGradients(losses, params)!
}

/**
 * `accumulate` that hands over each leaf of the sum as soon as the backward pass of the last batch has completed it. Returns the weighted mean
 * of the losses.
 */
export const accumulateEach = <A, P>(
  batches: readonly A[],
  weightOf: (batch: A) => number,
  lossOf: (batch: A) => (params: P) => tf.Scalar,
  total: number,
  take: GradientTaker
): ((params: P) => tf.Scalar) => {
  const losses = weightedLosses(batches, weightOf, lossOf, total)
  return (params) => {
    const sum = summedGradients(losses.slice(0, -1), params)
    try {
      const earlier = new Map(sum ? namedParameters(sum.grads) : [])
      const takeSum: GradientTaker = (path, gradient) => {
        const part = earlier.get(path)
        take(path, part ? part.add(gradient) : gradient)
        if (part) tf.dispose([part, gradient])
      }
      const value = valueAndEachGrad(losses.at(-1)!, takeSum)(params)
      if (!sum) return value
      const mean = sum.value.add<tf.Scalar>(value)
      value.dispose()
      return mean
    } finally {
      disposeParams([sum?.value, sum?.grads])
    }
  }
}
