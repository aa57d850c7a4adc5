import { isRecording } from '../autograd/tape.js'
import { tidyDataSync } from '../data-sync.js'
import { runKernel, usesTensorflowOps } from '../ops/kernel.js'
import { expectAxes, expectWhole, ShapeError, sizeOf } from '../shape.js'
import { tf } from '../tf.js'

/** The k experts of each of N tokens, `[N][k]`, and their weights `[N, k]`. */
export interface ExpertRouting {
  readonly experts: ReadonlyArray<ArrayLike<number>>
  readonly weights: tf.Tensor2D
}

/** The k highest entries of each row of `scores` `[N, E]`: their indices, highest first, and values `[N, k]`. */
export const topK = (
  scores: tf.Tensor2D,
  k: number
): { readonly indices: ReadonlyArray<Int32Array>; readonly values: tf.Tensor2D } => {
  expectAxes('topK', { scores: [scores, 'N E'] })
  const [N, E] = scores.shape
  expectWhole('topK', 'k', k, 1, E)
  if (N === 0) return { indices: [], values: tf.zeros([0, k]) }
  const flat = tidyDataSync(() => tf.topk(scores, k).indices) as Int32Array
  const indices = Array.from({ length: N }, (_, n) => flat.slice(n * k, (n + 1) * k))
  // `tf.topk` has no gradient; `tf.gather` of its indices has
  const flatIndices = tf.tensor1d(
    flat.map((e, i) => Math.floor(i / k) * E + e),
    'int32'
  )
  return { indices, values: tf.gather(scores.reshape([N * E]), flatIndices).reshape([N, k]) }
}

/**
 * `Σᵢ weights[n, i] · expert(experts[n][i], x[n])`, `[N, D] → [N, D']`. Each expert computes only the rows of the tokens that
 * chose it, `[n, D] → [n, D']`; an expert without tokens is not called.
 */
export const mixtureOfExperts = (
  x: tf.Tensor2D,
  { experts, weights }: ExpertRouting,
  expert: (index: number, rows: tf.Tensor2D) => tf.Tensor2D
): tf.Tensor2D => {
  const { N, k } = expectAxes('mixtureOfExperts', { x: [x, 'N D'], weights: [weights, 'N k'] }) as Record<'N' | 'k', number>
  if (N === 0 || k === 0 || experts.length !== N || experts.some((row) => row.length !== k))
    throw new ShapeError(
      `mixtureOfExperts: experts: expected [${Math.max(1, N)}][${Math.max(1, k)}] indices, got ${experts.length} rows for ${N} tokens`
    )
  const chosenBy = new Map<number, number[]>() // expert -> slots n·k + i of the tokens that chose the expert
  experts.forEach((row, n) => {
    for (let i = 0; i < k; i++) chosenBy.set(row[i]!, [...(chosenBy.get(row[i]!) ?? []), n * k + i])
  })
  const chosen = [...chosenBy].sort(([a], [b]) => a - b)
  const outputs = chosen.map(([index, slots]) => {
    const tokens = tf.tensor1d(
      slots.map((slot) => Math.floor(slot / k)),
      'int32'
    )
    return expert(index, tf.gather(x, tokens))
  })
  const computedAt = new Int32Array(N * k) // row of each slot in the concatenated outputs
  chosen
    .flatMap(([, slots]) => slots)
    .forEach((slot, row) => {
      computedAt[slot] = row
    })
  const all = tf.gather(tf.concat(outputs, 0), tf.tensor1d(computedAt, 'int32')) // [N·k, D']
  return all
    .reshape<tf.Tensor3D>([N, k, -1])
    .mul<tf.Tensor3D>(weights.reshape([N, k, 1]))
    .sum(1)
}

/** Each row of `x` `[N·k, D]` through the expert of its id, int32 `[N, k]` on the device: `[N·k, D']`. */
export type ChosenExperts = (x: tf.Tensor2D, ids: tf.Tensor2D) => tf.Tensor2D

/** Rows of `stacked` `[E, …]` at ids `[N, k]`, `[N·k, …]`. Where `routesOnDevice`: `tf.gather` reads its indices back, to check them. */
export const rowsOnDevice = <R extends tf.Rank>(stacked: tf.Tensor<R>, ids: tf.Tensor2D): tf.Tensor<R> => {
  const [E, ...shape] = stacked.shape as readonly number[]
  const columns = sizeOf(shape)
  const inputs = { weight: stacked.reshape([E!, columns]), ids }
  const rows = runKernel<tf.Tensor>('GatherRows', inputs, { format: 'float32', columns })
  return rows.reshape([ids.size, ...shape] as unknown as tf.ShapeMap[R])
}

/**
 * Whether the k of E experts of each of N tokens are chosen on the device: with TensorFlow's ops in a decoding step, where the weights of
 * the chosen ones are fewer than all. A prompt has more tokens; there the routing is read back, and each expert runs once.
 */
export const routesOnDevice = (N: number, k: number, E: number): boolean => usesTensorflowOps() && !isRecording() && N * k <= E

/**
 * `Σᵢ weights[n, i] · expert(indices[n, i], x[n])` over the k highest entries of each row of `scores` `[N, E]`, without reading them back:
 * `[N, D] → [N, D']`. `weightsOf` are the weights `[N, k]` of the highest entries.
 */
export const mixtureOnDevice = (
  x: tf.Tensor2D,
  scores: tf.Tensor2D,
  k: number,
  weightsOf: (values: tf.Tensor2D) => tf.Tensor2D,
  experts: ChosenExperts
): tf.Tensor2D => {
  const { N, D } = expectAxes('mixtureOnDevice', { x: [x, 'N D'], scores: [scores, 'N E'] }) as Record<'N' | 'D', number>
  const { values, indices } = tf.topk(scores, k)
  const slots = x
    .reshape([N, 1, D])
    .tile([1, k, 1])
    .reshape<tf.Tensor2D>([N * k, D])
  const outputs = experts(slots, indices as tf.Tensor2D) // not reshaped: TensorFlow has int32 reshaped in host memory
  return outputs
    .reshape<tf.Tensor3D>([N, k, -1])
    .mul<tf.Tensor3D>(weightsOf(values as tf.Tensor2D).reshape([N, k, 1]))
    .sum(1)
}

/**
 * Load-balancing loss of mixtures of experts, 1 for an even spread of tokens: `E · Σₑ (fraction of slots of expert e) · (mean probability
 * of expert e)`, over the router logits `[N, E]` of all layers. `attentionMask` `[B, L]` with B·L = N excludes padding. Fine-tuning does
 * not add this loss, as `InternVLForConditionalGeneration` does not. Source: Fedus et al. 2021, eq. 4–6; `load_balancing_loss_func` (transformers 5.24).
 */
export const loadBalancingLoss = (routerLogits: readonly tf.Tensor2D[], k: number, attentionMask?: tf.Tensor2D): tf.Scalar =>
  tf.tidy(() => {
    if (routerLogits.length === 0) throw new ShapeError('loadBalancingLoss: no layer')
    const layers = Object.fromEntries(
      routerLogits.map((logits, i) => [`routerLogits[${i}]`, [logits, 'N E', 'float32'] as const])
    )
    const { N, E } = expectAxes('loadBalancingLoss', layers) as Record<'N' | 'E', number>
    expectWhole('loadBalancingLoss', 'k', k, 1, E)
    if (attentionMask && attentionMask.size !== N)
      throw new ShapeError(`loadBalancingLoss: attentionMask: expected ${N} entries, got [${attentionMask.shape.join(', ')}]`)
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
