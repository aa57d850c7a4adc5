import { mapParams, namedParameters } from './params.js'
import { tf } from './tf.js'

/**
 * Value and gradient of a scalar loss; the gradient is a tree of the same structure as `params`.
 * A leaf that does not reach the loss has a gradient of zeros (PyTorch: `None`).
 * Throws a `RangeError` when the loss is not a scalar.
 *
 * `const { value, grads } = valueAndGrad((p) => loss(model.apply(p)(x)))(params)`
 */
export const valueAndGrad =
  <P>(loss: (params: P) => tf.Scalar) =>
  (params: P): { readonly value: tf.Scalar; readonly grads: P } => {
    const leaves = namedParameters(params).filter(([, leaf]) => leaf !== undefined)
    const replaced = (by: ReadonlyMap<string, tf.Tensor>): P => mapParams((_, path) => by.get(path) as tf.Tensor)(params)
    const { value, grads } = tf.tidy(() => {
      const xs = leaves.map(([, tensor]) => tensor)
      const out = tf.engine().gradients(() => loss(params), xs, undefined, true)
      if (out.value.size !== 1) throw new RangeError(`valueAndGrad: the loss must be a scalar, got shape [${out.value.shape}]`)
      return { value: out.value, grads: out.grads.map((g, i) => g ?? tf.zerosLike(xs[i]!)) }
    })
    return { value: value as tf.Scalar, grads: replaced(new Map(leaves.map(([path], i) => [path, grads[i]!]))) }
  }
