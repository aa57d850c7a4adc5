import { tf } from '../tf.js'

/** Inputs of a fused function by name; one that is `undefined` is not given. */
export type Inputs = Readonly<Record<string, tf.Tensor | undefined>>

/** What `dy` becomes for each input, computed only for those that are asked for. */
type Slopes = Readonly<Record<string, () => tf.Tensor>>

/** `[…, D] → [N, D]`. */
const rows = (x: tf.Tensor): tf.Tensor2D => x.reshape([-1, x.shape.at(-1)!])

/** Sum over all axes but the last: gradients of gains and biases. */
const overRows = (x: tf.Tensor): tf.Tensor => rows(x).sum(0)

/** Kernels whose way back is not that of their composition, which would compute their result again. */
export const slopes: Readonly<
  Record<
    string,
    (
      dy: tf.Tensor,
      inputs: Readonly<Record<string, tf.Tensor>>,
      attributes: Readonly<Record<string, unknown>>
    ) => Slopes | undefined
  >
> = {
  Affine: (dy, { x, weight }, { activation }) =>
    activation === undefined
      ? {
          x: () => tf.matMul(rows(dy), weight as tf.Tensor2D).reshape(x!.shape),
          weight: () => tf.matMul(rows(dy), rows(x!), true, false),
          bias: () => overRows(dy)
        }
      : undefined,

  // y = x · r · w with r = 1/√(E[x²] + eps): dx = r · (g − n · E[g · n]) with g = dy · w, n = x · r
  RmsNorm: (dy, { x, weight }, { eps }) => {
    if (x!.shape.at(-1) !== weight!.size) return undefined // heads side by side
    const r = x!
      .square()
      .mean(-1, true)
      .add(eps as number)
      .rsqrt()
    const n = x!.mul(r)
    return {
      x: () => {
        const g = dy.mul(weight!)
        return g.sub(n.mul(g.mul(n).mean(-1, true))).mul(r)
      },
      weight: () => overRows(dy.mul(n))
    }
  },

  Residual: (dy, { branch, scale }) => ({
    x: () => dy.clone(),
    branch: () => dy.mul(scale!),
    scale: () => overRows(dy.mul(branch!))
  })
}
