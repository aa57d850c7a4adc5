import { operation } from '../../autograd/tape.js'
import { fused } from '../../ops/fused.js'
import { tf } from '../../tf.js'

/** The label of a place that takes no part in a loss. Source: `ignore_index` of PyTorch. */
export const ignored = -100

/** 16 Mi, 64 MiB in float32: of logits, so many are worked on at a time. */
const defaultMaxLogits = 16 * 2 ** 20

/** `f` for the rows of `[N, V]` a block at a time, its results behind one another. */
const inBlocks = <T extends tf.Tensor>(
  [N, V]: readonly [number, number],
  most: number,
  f: (start: number, rows: number) => T
): T => {
  const rows = Math.max(1, Math.floor(most / V))
  if (rows >= N) return f(0, N)
  const starts = Array.from({ length: Math.ceil(N / rows) }, (_, i) => i * rows)
  return tf.concat(starts.map((start) => tf.tidy(() => f(start, Math.min(rows, N - start)))))
}

/** One block of rows after the other, on the way there and back. */
const lossesInBlocks = (logits: tf.Tensor2D, labels: tf.Tensor1D, maxLogits: number): tf.Tensor1D => {
  const [N, V] = logits.shape
  const wanted = Array.from(labels.dataSync(), (label) => (label === ignored ? 0 : label))
  const counts = labels.notEqual(ignored).toFloat()
  const rowsOf = (x: tf.Tensor, start: number, rows: number) => x.slice([start, 0], [rows, V]) as tf.Tensor2D
  const loss = (x: tf.Tensor, start: number, rows: number) => {
    const z = rowsOf(x, start, rows)
    const places = wanted.slice(start, start + rows).map((label, i) => i * V + label)
    return tf.logSumExp(z, 1).sub<tf.Tensor1D>(tf.gather(z.reshape([-1]), tf.tensor1d(places, 'int32')))
  }
  const slope = (x: tf.Tensor, scale: tf.Tensor, start: number, rows: number) => {
    const picked = tf.oneHot(tf.tensor1d(wanted.slice(start, start + rows), 'int32'), V)
    return tf
      .softmax(rowsOf(x, start, rows))
      .sub(picked)
      .mul(scale.slice([start], [rows]).reshape([rows, 1]))
  }
  return operation({
    inputs: { logits },
    forward: (save) => {
      save([logits, counts])
      return inBlocks([N, V], maxLogits, (...block) => loss(logits, ...block)).mul<tf.Tensor1D>(counts)
    },
    backward: ([dy], [x, counted]) => ({
      logits: () => inBlocks([N, V], maxLogits, (...block) => slope(x!, dy!.mul(counted!), ...block))
    })
  })
}

/** Throws a `RangeError` for a label that is no row of logits. */
const checkLabels = (labels: tf.Tensor1D, V: number): void => {
  const wrong = labels.dataSync().find((label) => label !== ignored && !(label >= 0 && label < V))
  if (wrong !== undefined) throw new RangeError(`labels: ${wrong} is not in [0, ${V}), nor ${ignored}`)
}

/**
 * `−log softmax(logits)[label]` of every row, 0 where the label is −100: `[N, V]`, `[N]` int32 → `[N]`. Beside the logits, and on
 * the way back their gradient, at most `maxLogits` numbers of `[N, V]` are held at a time, yet a row. Throws a `RangeError` for a
 * label beyond the logits.
 */
export const tokenLosses = (logits: tf.Tensor2D, labels: tf.Tensor1D, maxLogits = defaultMaxLogits): tf.Tensor1D => {
  checkLabels(labels, logits.shape[1])
  return fused('TokenLosses', { logits, labels }, {}, (given) => lossesInBlocks(given.logits, given.labels, maxLogits))
}

/**
 * `Σ w · −log softmax(logits)[label] / Σ w` over the rows whose label is not −100: `[N, V]`, `[N]` int32, `[N]` → scalar; w is 1
 * for all by default. Not a number where no row counts.
 * Source: `torch.nn.functional.cross_entropy`; weights as in `InternVLChatModel.forward`, `loss_weight` (OpenGVLab).
 */
export const crossEntropy = (logits: tf.Tensor2D, labels: tf.Tensor1D, weights?: tf.Tensor1D): tf.Scalar =>
  tf.tidy(() => {
    const counted = labels.notEqual(ignored).toFloat()
    const w = weights ? weights.mul(counted) : counted
    return tokenLosses(logits, labels).mul(w).sum().div<tf.Scalar>(w.sum())
  })

/** What each position predicts, and the next position's entry of `[B, L]`: `[B·(L−1), V]`, `[B·(L−1)]`. */
const predicted = (logits: tf.Tensor3D): tf.Tensor2D => {
  const [B, L, V] = logits.shape
  return logits.slice([0, 0, 0], [B, L - 1, V]).reshape([B * (L - 1), V])
}
const following = (x: tf.Tensor2D): tf.Tensor1D => x.slice([0, 1], [x.shape[0], x.shape[1] - 1]).reshape([-1])

/**
 * Loss of predicting each token from those before it: `logits` `[B, L, V]`, `labels` `[B, L]`, −100 ignored, and a weight for each
 * label, `[B, L]`, 1 by default. Source: `ForCausalLMLoss`.
 */
export const causalLoss = (logits: tf.Tensor3D, labels: tf.Tensor2D, weights?: tf.Tensor2D): tf.Scalar =>
  tf.tidy(() => crossEntropy(predicted(logits), following(labels), weights && following(weights)))

/**
 * Places of `[B·L]` whose next label is learned: those that a causal loss needs logits of. The first one, which adds nothing, where
 * none is.
 */
export const learnedPlaces = (labels: tf.Tensor2D): readonly number[] => {
  const L = labels.shape[1]
  const all = labels.dataSync()
  const places = [...all.keys()].filter((i) => (i + 1) % L !== 0 && all[i + 1] !== ignored)
  return places.length > 0 ? places : [0]
}

/** `log p(labels)` of every sample, summed over the labels that are not −100: `[B, L, V]`, `[B, L]` → `[B]`. Source: TRL's `get_batch_logps`. */
export const logProbabilities = (logits: tf.Tensor3D, labels: tf.Tensor2D): tf.Tensor1D =>
  tf.tidy(() => {
    const [B, L] = labels.shape
    return tokenLosses(predicted(logits), following(labels))
      .reshape([B, L - 1])
      .sum<tf.Tensor1D>(1)
      .neg()
  })

/** How much a sample of x supervised tokens weighs by a token: 1, 1/x, or 1/√x. Source: `len2weight` (OpenGVLab's `dataset_packed.py`). */
const reductions = {
  token: (_: number) => 1,
  sample: (x: number) => 1 / x,
  square: (x: number) => 1 / Math.sqrt(x)
} as const

export type Reduction = keyof typeof reductions

/**
 * A weight for each label `[B][L]`, for `causalLoss`: 0 where it is −100. A row is a sample; where several are packed into one,
 * `segments` `[B][L]` tells them apart.
 */
export const reductionWeights = (
  labels: ReadonlyArray<readonly number[]>,
  reduction: Reduction,
  segments?: ReadonlyArray<readonly number[]>
): readonly number[][] =>
  labels.map((row, b) => {
    const sampleOf = (i: number) => segments?.[b]?.[i] ?? 0
    const counts = new Map<number, number>()
    for (const [i, label] of row.entries()) if (label !== ignored) counts.set(sampleOf(i), (counts.get(sampleOf(i)) ?? 0) + 1)
    return row.map((label, i) => (label === ignored ? 0 : reductions[reduction](counts.get(sampleOf(i))!)))
  })
