import { usesTensorflowOps } from '../../../lib/ops/kernel.js'
import { tf } from '../../../lib/tf.js'
import { type GenerateOptions, isSampling, returnsLogprobs } from '../generation-options.js'
import { logSoftmax } from '../logits-processors.js'
import { topIndices } from '../logits-warpers.js'
import type { PreparedGeneration, TopLogprob } from '../prepare-generation.js'
import { isGuided } from '../prompts/guidance.js'
import { invalidLogits, type RandomGenerator, sampleIndex } from '../sampling.js'
import type { FinishReason } from '../stopping.js'
import { tokensOnDevice } from './device-sampling.js'

/** State of one row during decoding. Only `samplingLoop` changes it. */
export interface SequenceState {
  /** Index of the prompt in the inputs. */
  readonly source: number
  readonly promptLength: number
  /** Token ids of prompt and answer. */
  readonly ids: number[]
  readonly logprobs: number[]
  /** Unprocessed and processed logits of each token, where the options ask for them. */
  readonly stepLogits: Float32Array[]
  readonly stepScores: Float32Array[]
  rng: RandomGenerator
  finishReason?: FinishReason
}

export interface SelectedToken {
  readonly token: number
  readonly logprob?: number
  readonly topLogprobs?: readonly TopLogprob[]
  readonly logits?: Float32Array
  readonly scores?: Float32Array
}

/** The options that select the next token of a row. */
export type Selection = Pick<PreparedGeneration, 'options' | 'logitsProcessor' | 'onDevice'>

/** Whether the token is all that a row returns of its logits. */
const needsTokenOnly = ({ options: o }: Selection): boolean =>
  !isGuided(o) && !returnsLogprobs(o) && !o.outputScores && !o.outputLogits

/** Whether the index of the largest logit is all that a row needs. */
const needsArgMaxOnly = (selection: Selection): boolean =>
  needsTokenOnly(selection) && !selection.logitsProcessor && !isSampling(selection.options)

/**
 * A function that computes the tokens of all rows from their logits `[N, V]` as float32 `[N]`, or undefined where the host selects: on a
 * CPU, which has the logits, and where a row has a processor or an output that needs them.
 */
const deviceSelection = (selections: readonly Selection[], rows: readonly SequenceState[] | undefined) => {
  if (selections.every(needsArgMaxOnly)) return (logits: tf.Tensor2D): tf.Tensor1D => logits.argMax<tf.Tensor1D>(-1).toFloat()
  if (!rows || !usesTensorflowOps() || !selections.every((s) => s.onDevice && needsTokenOnly(s))) return undefined
  const deviceRows = rows.map(({ ids, promptLength, rng }, n) => {
    const { onDevice } = selections[n] ?? selections[0]!
    return { settings: onDevice!, ids, promptLength, uniform: rng.uniform() }
  })
  return (logits: tf.Tensor2D): tf.Tensor1D => tokensOnDevice(logits, deviceRows)
}

/** The log-probabilities of a selected token and of the most probable tokens, from unprocessed logits `[V]`. */
const withLogprobs = (token: number, raw: Float32Array, { topLogprobs = 0 }: GenerateOptions): SelectedToken => {
  const logprobs = logSoftmax(raw)
  const top = topLogprobs > 0 ? topIndices(raw, topLogprobs).map((id) => ({ token: id, logprob: logprobs[id]! })) : undefined
  return { token, logprob: logprobs[token]!, ...(top ? { topLogprobs: top } : {}) }
}

/** The rows of a step's logits. */
export interface StepContext {
  /** Logits that tokens are selected from instead, disposed too. */
  readonly guided?: tf.Tensor2D | undefined
  /** The row of each of the N logits, if the selected tokens do not change each other's row. */
  readonly rows?: readonly SequenceState[]
}

/**
 * Reads logits `[N, V]` back, disposes them, and returns a function that selects the next token of a row from logits `n`, by the
 * options of the row: `selections` has those of each of the N rows, or one for all. If all rows are greedy without processors, or with
 * `rows` on a GPU by options of `deviceSampling`, only 2 N numbers are read back. The function throws an `InternVLError` with the tag
 * `InvalidLogits` for a row whose logits are NaN.
 */
export const tokenSelector = async (
  logits: tf.Tensor2D,
  selections: readonly Selection[],
  { guided, rows }: StepContext = {}
): Promise<(row: SequenceState, n: number) => SelectedToken> => {
  const select = deviceSelection(selections, rows)
  const [N, V] = logits.shape
  // the first logit of each row is read too: one NaN in the hidden states makes all logits of its row NaN
  const output = select ? tf.tidy(() => tf.concat([select(logits), logits.slice([0, 0], [N, 1]).reshape([N])])) : logits
  const [data, guidedData] = await Promise.all([output.data(), guided?.data()]).finally(() =>
    tf.dispose([logits, output, ...(guided ? [guided] : [])])
  )
  return (row, n) => {
    const { options: o, logitsProcessor } = selections[n] ?? selections[0]!
    if (!o.removeInvalidValues && Number.isNaN(data[select ? N + n : n * V]!)) throw invalidLogits()
    if (select) return { token: data[n]! }
    const raw = data.slice(n * V, (n + 1) * V) as Float32Array
    const start = guidedData ? (guidedData.slice(n * V, (n + 1) * V) as Float32Array) : raw
    const processed = logitsProcessor ? logitsProcessor(row.ids, start, row.promptLength) : start
    const token = isSampling(o) ? sampleIndex(processed, row.rng.uniform()) : topIndices(processed, 1)[0]!
    const outputs = { ...(o.outputLogits ? { logits: raw } : {}), ...(o.outputScores ? { scores: processed } : {}) }
    return { ...(returnsLogprobs(o) ? withLogprobs(token, raw, o) : { token }), ...outputs }
  }
}
