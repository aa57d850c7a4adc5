import { tf } from '../../../lib/tf.js'
import { type GenerateOptions, isSampling } from '../generation-options.js'
import { logitsProcessors } from '../logits-processors.js'

/** Settings of one row whose next token can be selected where its logits are; the defaults of each change nothing. */
export interface DeviceSampling {
  readonly isSampling: boolean
  readonly repetitionPenalty: number
  readonly presencePenalty: number
  readonly frequencyPenalty: number
  readonly temperature: number
  /** 0 keeps all tokens. */
  readonly topK: number
  readonly topP: number
  readonly minP: number
}

/** A row of logits: its settings, the ids of prompt and answer, and the uniform number in (0, 1) that it samples with. */
export interface DeviceRow {
  readonly settings: DeviceSampling
  readonly ids: readonly number[]
  readonly promptLength: number
  readonly uniform: number
}

/** The options among those of `generate` that have ops here. */
const supported = ({
  doSample,
  numBeams,
  repetitionPenalty,
  presencePenalty,
  frequencyPenalty,
  temperature,
  topK,
  topP,
  minP
}: GenerateOptions): GenerateOptions => ({
  ...(doSample === undefined ? {} : { doSample }),
  ...(numBeams === undefined ? {} : { numBeams }),
  ...(repetitionPenalty === undefined ? {} : { repetitionPenalty }),
  ...(presencePenalty === undefined ? {} : { presencePenalty }),
  ...(frequencyPenalty === undefined ? {} : { frequencyPenalty }),
  ...(temperature === undefined ? {} : { temperature }),
  ...(topK === undefined ? {} : { topK }),
  ...(topP === undefined ? {} : { topP }),
  ...(minP === undefined ? {} : { minP })
})

/**
 * The settings with which tokens are selected on the device, or undefined if the options need a logits processor that runs on the host.
 * `paddedLength` and `maxNewTokens` are those of `logitsProcessors`.
 */
export const deviceSampling = (o: GenerateOptions, paddedLength: number, maxNewTokens: number): DeviceSampling | undefined => {
  const count = (options: GenerateOptions): number => logitsProcessors(options, paddedLength, maxNewTokens).length
  if (count(o) !== count(supported(o))) return undefined
  const { repetitionPenalty = 1, presencePenalty = 0, frequencyPenalty = 0 } = o
  const penalties = { repetitionPenalty, presencePenalty, frequencyPenalty }
  if (!isSampling(o)) return { isSampling: false, ...penalties, temperature: 1, topK: 0, topP: 1, minP: 0 }
  const { temperature = 1, topK = 50, topP = 1, minP = 0 } = o
  return { isSampling: true, ...penalties, temperature, topK, topP, minP }
}

const minusInfinity = Number.NEGATIVE_INFINITY

/** One number of each row, `[N, 1]`. */
const column = (rows: readonly DeviceRow[], f: (row: DeviceRow) => number): tf.Tensor2D =>
  tf.tensor2d(rows.map(f), [rows.length, 1], 'float32')

/** Logits where `isKept`, else minus infinity. */
const keepWhere = (logits: tf.Tensor2D, isKept: tf.Tensor): tf.Tensor2D =>
  tf.where(isKept, logits, tf.fill(logits.shape, minusInfinity))

/** Number of occurrences of each token in the ids of its row, `[N, V]`. */
const countsOf = (ids: ReadonlyArray<readonly number[]>, V: number): tf.Tensor2D => {
  const cells = ids.flatMap((row, n) => row.filter((id) => id < V).map((id) => n * V + id))
  return tf.unsortedSegmentSum(tf.ones([cells.length]), tf.tensor1d(cells, 'int32'), ids.length * V).reshape([ids.length, V])
}

/** `repetitionPenalty` and `countPenalty` of logits-processors.ts. */
const penalize = (logits: tf.Tensor2D, rows: readonly DeviceRow[]): tf.Tensor2D => {
  const V = logits.shape[1]
  let out = logits
  if (rows.some(({ settings: s }) => s.repetitionPenalty !== 1)) {
    const isSeen = countsOf(
      rows.map(({ ids }) => ids),
      V
    ).greater(0)
    const penalty = column(rows, ({ settings }) => settings.repetitionPenalty)
    out = tf.where(isSeen, tf.where(out.less(0), out.mul(penalty), out.div(penalty)), out)
  }
  if (rows.some(({ settings: s }) => s.presencePenalty !== 0 || s.frequencyPenalty !== 0)) {
    const counts = countsOf(
      rows.map(({ ids, promptLength }) => ids.slice(promptLength)),
      V
    )
    const presence = column(rows, ({ settings }) => settings.presencePenalty)
    const frequency = column(rows, ({ settings }) => settings.frequencyPenalty)
    out = out.sub(counts.greater(0).toFloat().mul(presence)).sub(counts.mul(frequency))
  }
  return out
}

/** `topKFilter`: logits below the k-th largest of their row are forbidden. */
const topKOnDevice = (logits: tf.Tensor2D, rows: readonly DeviceRow[]): tf.Tensor2D => {
  const V = logits.shape[1]
  const ks = rows.map(({ settings: { topK } }) => (topK > 0 ? Math.min(topK, V) : V))
  const bounded = ks.filter((k) => k < V)
  if (bounded.length === 0) return logits
  const most = Math.max(...bounded)
  const { values } = tf.topk(logits, most)
  const isLast = tf.tensor2d(
    ks.map((k) => Array.from({ length: most }, (_, at) => at === k - 1)),
    [ks.length, most],
    'bool'
  )
  const limit = keepWhere(values as tf.Tensor2D, isLast).max(-1, true) // minus infinity for a row without the filter
  return keepWhere(logits, logits.greaterEqual(limit))
}

/**
 * `topPFilter`: logits sorted ascending, equal ones by index; a token is forbidden if the tokens after it have at least `topP` of the
 * probability. The limit and the number of equal logits to keep lead back to the order of the vocabulary.
 */
const topPOnDevice = (logits: tf.Tensor2D, rows: readonly DeviceRow[]): tf.Tensor2D => {
  if (rows.every(({ settings: { topP } }) => topP === 1)) return logits
  const V = logits.shape[1]
  const negated = tf.topk(logits.neg(), V).values as tf.Tensor2D
  const ascending = negated.neg()
  const sums = ascending.softmax().cumsum(-1)
  const after = sums.slice([0, V - 1], [-1, 1]).sub(sums) // exactly 0 for the last token, which is never forbidden
  // a row without the filter keeps even a token after which all rounded probability lies
  const topP = column(rows, ({ settings }) => (settings.topP === 1 ? 2 : Math.max(settings.topP, 1e-30)))
  const isKept = after.less(topP)
  const limit = keepWhere(negated, isKept).max(-1, true).neg() // the smallest that remains
  const equalKept = isKept.logicalAnd(ascending.equal(limit)).toFloat().sum(-1, true)
  const isEqual = logits.equal(limit)
  const isLateEqual = isEqual.logicalAnd(isEqual.toFloat().cumsum(-1, false, true).lessEqual(equalKept))
  return keepWhere(logits, logits.greater(limit).logicalOr(isLateEqual))
}

/** `minPFilter`: a probability of `minP` times the largest is a logit `log minP` below it. */
const minPOnDevice = (logits: tf.Tensor2D, rows: readonly DeviceRow[]): tf.Tensor2D => {
  if (rows.every(({ settings: { minP } }) => minP === 0)) return logits
  const distance = column(rows, ({ settings }) => Math.log(settings.minP))
  return keepWhere(logits, logits.greaterEqual(logits.max(-1, true).add(distance)))
}

/** Largest uniform number: the products below stay under the sum of the probabilities in float32. */
const mostUniform = 1 - 2 ** -22

/** `sampleIndex` of each row `[N, V] → [N]`: the number of tokens whose cumulative probability does not exceed the uniform number. */
const sampleOnDevice = (logits: tf.Tensor2D, rows: readonly DeviceRow[]): tf.Tensor1D => {
  const sums = logits.softmax().cumsum(-1)
  const total = sums.slice([0, logits.shape[1] - 1], [-1, 1])
  const target = total.mul(column(rows, ({ uniform }) => Math.min(uniform, mostUniform)))
  return sums.lessEqual(target).toFloat().sum(-1)
}

/**
 * The next token of each row of logits `[N, V]` as float32 `[N]`: penalties, temperature, top-k, top-p, min-p, and inverse transform
 * sampling with the row's uniform number, or the largest logit. Equal to the host's selection up to the rounding of float32: another
 * token is selected only where the uniform number is that close to the border of two tokens. Numbers of the row and the ids that are
 * penalized are uploaded; nothing is read back.
 */
export const tokensOnDevice = (logits: tf.Tensor2D, rows: readonly DeviceRow[]): tf.Tensor1D =>
  tf.tidy(() => {
    const penalized = penalize(logits, rows)
    const greedy = penalized.argMax<tf.Tensor1D>(-1).toFloat()
    if (!rows.some(({ settings }) => settings.isSampling)) return greedy
    const scaled = penalized.div<tf.Tensor2D>(column(rows, ({ settings }) => settings.temperature))
    const filtered = minPOnDevice(topPOnDevice(topKOnDevice(scaled, rows), rows), rows)
    const isSampled = tf.tensor1d(
      rows.map(({ settings }) => settings.isSampling),
      'bool'
    )
    return tf.where(isSampled, sampleOnDevice(filtered, rows), greedy)
  })
