import { customGradient } from '../../autograd/tape.js'
import { fused } from '../../ops/fused.js'
import { expectAxes, ShapeError } from '../../shape.js'
import { tf } from '../../tf.js'

/** Label of positions that the loss ignores. Source: `ignore_index` of PyTorch. */
export const ignoreIndex = -100

/** Number of logits in one block: 16 Mi, 64 MiB in float32. */
const defaultMaxLogits = 16 * 2 ** 20

/** Runs `f` on blocks of rows of `[N, V]`, and concatenates the results. */
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

/** Token losses in blocks of rows, forward and backward. */
const lossesInBlocks = (logits: tf.Tensor2D, labels: tf.Tensor1D, maxLogits: number): tf.Tensor1D => {
  const [N, V] = logits.shape
  const wanted = Array.from(labels.dataSync(), (label) => (label === ignoreIndex ? 0 : label))
  const counts = labels.notEqual(ignoreIndex).toFloat()
  const rowsOf = (x: tf.Tensor, start: number, rows: number) => x.slice([start, 0], [rows, V]) as tf.Tensor2D
  const loss = (x: tf.Tensor, start: number, rows: number) => {
    const z = rowsOf(x, start, rows)
    const indices = wanted.slice(start, start + rows).map((label, i) => i * V + label)
    return tf.logSumExp(z, 1).sub<tf.Tensor1D>(tf.gather(z.reshape([-1]), tf.tensor1d(indices, 'int32')))
  }
  const gradient = (x: tf.Tensor, scale: tf.Tensor, start: number, rows: number) => {
    const picked = tf.oneHot(tf.tensor1d(wanted.slice(start, start + rows), 'int32'), V)
    return tf
      .softmax(rowsOf(x, start, rows))
      .sub(picked)
      .mul(scale.slice([start], [rows]).reshape([rows, 1]))
  }
  return customGradient({
    name: 'tokenLosses',
    inputs: { logits },
    forward: (save) => {
      save([logits, counts])
      return tf.tidy(() => inBlocks([N, V], maxLogits, (...block) => loss(logits, ...block)).mul<tf.Tensor1D>(counts))
    },
    backward: ([dy], [x, counted]) => ({
      logits: () => inBlocks([N, V], maxLogits, (...block) => gradient(x!, dy!.mul(counted!), ...block))
    })
  })
}

/** Throws a `RangeError` for a label outside the vocabulary. */
const checkLabels = (labels: tf.Tensor1D, V: number): void => {
  const wrong = labels.dataSync().find((label) => label !== ignoreIndex && !(label >= 0 && label < V))
  if (wrong !== undefined) throw new RangeError(`labels: ${wrong} is not in [0, ${V}), nor ${ignoreIndex}`)
}

/**
 * `−log softmax(logits)[label]` of every row, 0 where the label is −100: `[N, V]`, `[N]` int32 → `[N]`. Beyond the logits, and their
 * gradient in the backward pass, memory holds at most `maxLogits` numbers, but at least one row. Throws a `RangeError` for a label outside
 * the vocabulary.
 */
export const tokenLosses = (logits: tf.Tensor2D, labels: tf.Tensor1D, maxLogits = defaultMaxLogits): tf.Tensor1D => {
  expectAxes('tokenLosses', { logits: [logits, 'N V', 'float32'], labels: [labels, 'N', 'int32'] })
  checkLabels(labels, logits.shape[1])
  return fused('CrossEntropy', { logits, labels }, {}, (given) => lossesInBlocks(given.logits, given.labels, maxLogits))
}

/**
 * `Σ w · −log softmax(logits)[label] / Σ w` over the rows whose label is not −100: `[N, V]`, `[N]` int32, `[N]` → scalar; w is 1
 * by default. NaN if every label is −100.
 * Source: `torch.nn.functional.cross_entropy`; weights as in `InternVLChatModel.forward`, `loss_weight` (OpenGVLab).
 */
export const crossEntropy = (logits: tf.Tensor2D, labels: tf.Tensor1D, weights?: tf.Tensor1D): tf.Scalar =>
  tf.tidy(() => {
    expectAxes('crossEntropy', { logits: [logits, 'N V', 'float32'], labels: [labels, 'N', 'int32'], ...(weights ? { weights: [weights, 'N'] } : {}) }) // biome-ignore format: one line
    const counted = labels.notEqual(ignoreIndex).toFloat()
    const w = weights ? weights.mul(counted) : counted
    return tokenLosses(logits, labels).mul(w).sum().div<tf.Scalar>(w.sum())
  })

/** Logits of all positions but the last, `[B·(L−1), V]`; `following` gives the next position's entry of `[B, L]`, `[B·(L−1)]`. */
const predicted = (logits: tf.Tensor3D): tf.Tensor2D => {
  const [B, L, V] = logits.shape
  return logits.slice([0, 0, 0], [B, L - 1, V]).reshape([B * (L - 1), V])
}
const following = (x: tf.Tensor2D): tf.Tensor1D => x.slice([0, 1], [x.shape[0], x.shape[1] - 1]).reshape([-1])

/** Throws a `ShapeError` unless logits `[B, L, V]` and labels `[B, L]` agree and L is at least 1. */
const expectRows = (operation: string, logits: tf.Tensor3D, labels: tf.Tensor2D, weights?: tf.Tensor2D): void => {
  const { L } = expectAxes(operation, { logits: [logits, 'B L V', 'float32'], labels: [labels, 'B L', 'int32'], ...(weights ? { weights: [weights, 'B L'] } : {}) }) // biome-ignore format: one line
  if (L === 0) throw new ShapeError(`${operation}: rows without tokens`)
}

/**
 * Loss of predicting each token from those before it: `logits` `[B, L, V]`, `labels` `[B, L]`, −100 ignored, and a weight for each
 * label, `[B, L]`, 1 by default. Source: `ForCausalLMLoss`.
 */
export const causalLoss = (logits: tf.Tensor3D, labels: tf.Tensor2D, weights?: tf.Tensor2D): tf.Scalar =>
  tf.tidy(() => {
    expectRows('causalLoss', logits, labels, weights)
    return crossEntropy(predicted(logits), following(labels), weights && following(weights))
  })

/**
 * Supervised positions: indices into `[B·L]` whose next label is not −100, the only positions whose logits a causal loss needs. `[0]`,
 * which adds nothing to the loss, if there are none.
 */
export const supervisedPositions = (labels: tf.Tensor2D): readonly number[] => {
  const L = labels.shape[1]
  const all = labels.dataSync()
  const positions = [...all.keys()].filter((i) => (i + 1) % L !== 0 && all[i + 1] !== ignoreIndex)
  return positions.length > 0 ? positions : [0]
}

/** `log p(labels)` of every sample, summed over the labels that are not −100: `[B, L, V]`, `[B, L]` → `[B]`. Source: TRL's `get_batch_logps`. */
export const logProbabilities = (logits: tf.Tensor3D, labels: tf.Tensor2D): tf.Tensor1D =>
  tf.tidy(() => {
    expectRows('logProbabilities', logits, labels)
    const [B, L] = labels.shape
    return tokenLosses(predicted(logits), following(labels))
      .reshape([B, L - 1])
      .sum<tf.Tensor1D>(1)
      .neg()
  })

/** Weight of each token of a sample with x supervised tokens: 1, 1/x, or 1/√x. Source: `len2weight` (OpenGVLab's `dataset_packed.py`). */
const reductions = {
  token: (_: number) => 1,
  sample: (x: number) => 1 / x,
  square: (x: number) => 1 / Math.sqrt(x)
} as const

export type Reduction = keyof typeof reductions

/**
 * A weight for each label `[B][L]`, for `causalLoss`: 0 where it is −100. A row is one sample, or several packed
 * samples with the sample numbers `segments` `[B][L]`.
 */
export const reductionWeights = (
  labels: ReadonlyArray<readonly number[]>,
  reduction: Reduction,
  segments?: ReadonlyArray<readonly number[]>
): readonly number[][] =>
  labels.map((row, b) => {
    const sampleOf = (i: number) => segments?.[b]?.[i] ?? 0
    const counts = new Map<number, number>()
    for (const [i, label] of row.entries()) if (label !== ignoreIndex) counts.set(sampleOf(i), (counts.get(sampleOf(i)) ?? 0) + 1)
    return row.map((label, i) => (label === ignoreIndex ? 0 : reductions[reduction](counts.get(sampleOf(i))!)))
  })
