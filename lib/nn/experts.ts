import { numbersOf } from '../numbers.js'
import { tf } from '../tf.js'

/** Which experts each of N tokens goes to: `[N][k]`, and with what weights: `[N, k]`. */
export interface Routes {
  readonly experts: ReadonlyArray<ArrayLike<number>>
  readonly weights: tf.Tensor2D
}

/** The k highest entries of each row of `scores` `[N, E]`: which they are, highest first, and their values `[N, k]`. */
export const topK = (
  scores: tf.Tensor2D,
  k: number
): { readonly indices: ReadonlyArray<Int32Array>; readonly values: tf.Tensor2D } => {
  const [N, E] = scores.shape
  const flat = numbersOf(() => tf.topk(scores, k).indices) as Int32Array
  const indices = Array.from({ length: N }, (_, n) => flat.slice(n * k, (n + 1) * k))
  // top-k has no gradient in TensorFlow.js; gathering what it found has
  const places = tf.tensor1d(
    flat.map((e, i) => Math.floor(i / k) * E + e),
    'int32'
  )
  return { indices, values: tf.gather(scores.reshape([N * E]), places).reshape([N, k]) }
}

/**
 * `Σᵢ weights[n, i] · expert(experts[n][i], x[n])`, `[N, D] → [N, D']`. Each expert computes only the rows of the tokens that
 * chose it, `[n, D] → [n, D']`; one that none chose is not called.
 */
export const mixture = (
  x: tf.Tensor2D,
  { experts, weights }: Routes,
  expert: (index: number, rows: tf.Tensor2D) => tf.Tensor2D
): tf.Tensor2D => {
  const [N, k] = weights.shape
  const chosenBy = new Map<number, number[]>() // expert -> places n·k + i that chose it
  experts.forEach((row, n) => {
    for (let i = 0; i < k; i++) chosenBy.set(row[i]!, [...(chosenBy.get(row[i]!) ?? []), n * k + i])
  })
  const chosen = [...chosenBy].sort(([a], [b]) => a - b)
  const outputs = chosen.map(([index, places]) => {
    const tokens = tf.tensor1d(
      places.map((place) => Math.floor(place / k)),
      'int32'
    )
    return expert(index, tf.gather(x, tokens))
  })
  const computedAt = new Int32Array(N * k) // row of the outputs, one under another, that holds each place
  chosen
    .flatMap(([, places]) => places)
    .forEach((place, row) => {
      computedAt[place] = row
    })
  const all = tf.gather(tf.concat(outputs, 0), tf.tensor1d(computedAt, 'int32')) // [N·k, D']
  return all.reshape<tf.Tensor3D>([N, k, -1]).mul<tf.Tensor3D>(weights.expandDims(2)).sum(1)
}

/**
 * How unevenly routers spread tokens, 1 when evenly: `E · Σₑ (share of places of expert e) · (its mean probability)`, over the
 * router logits `[N, E]` of all layers. `attentionMask` `[B, L]` with B·L = N leaves padding out. Times `router_aux_loss_coef`,
 * it is added to the loss. Source: Fedus et al. 2021, eq. 4–6; `load_balancing_loss_func` (transformers 5.23).
 */
export const loadBalancingLoss = (routerLogits: readonly tf.Tensor2D[], k: number, attentionMask?: tf.Tensor2D): tf.Scalar =>
  tf.tidy(() => {
    const [N, E] = routerLogits[0]!.shape
    const counted = attentionMask ? attentionMask.toFloat().reshape<tf.Tensor2D>([N, 1]) : tf.ones<tf.Rank.R2>([N, 1])
    const rows = counted.sum().mul(routerLogits.length)
    const perLayer = routerLogits.map((logits) => {
      const probabilities = tf.softmax(logits)
      const { indices } = topK(probabilities, k)
      const chosen = tf.tensor2d(indices.map((row) => Array.from({ length: E }, (_, e) => Number(row.includes(e))))) // [N, E]
      return [chosen.mul(counted).sum(0), probabilities.mul(counted).sum(0)] as const
    })
    const total = (i: 0 | 1) =>
      perLayer
        .map((sums) => sums[i])
        .reduce((a, b) => a.add(b))
        .div(rows)
    return total(0).mul(total(1)).sum().mul(E) as tf.Scalar
  })
