import { usesTensorflowOps } from '../../../lib/ops/kernel.js'
import { tf } from '../../../lib/tf.js'
import { type GenerateOptions, isSampling, returnsLogprobs } from '../generation-options.js'
import { logSoftmax } from '../logits-processors.js'
import { topIndices } from '../logits-warpers.js'
import type { PreparedGeneration, TopLogprob } from '../prepare-generation.js'
import { isGuided } from '../prompts/guidance.js'
import { invalidLogits, type RandomGenerator, sampleIndex } from '../sampling.js'
import type { FinishReason } from '../stopping.js'
import { logprobsOnDevice, readLogprobs } from './device-logprobs.js'
import { tokensOnDevice } from './device-sampling.js'

/** State of one row during decoding. `appendToken` and the loop that decodes the row change it. */
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

/** Whether a row returns logits, or selects from those of two prompts. */
const needsLogits = ({ options: o }: Selection): boolean => isGuided(o) || o.outputScores === true || o.outputLogits === true

/** Whether the index of the largest logit is all that a row needs. */
const needsArgMaxOnly = (selection: Selection): boolean =>
  !needsLogits(selection) && !returnsLogprobs(selection.options) && !selection.logitsProcessor && !isSampling(selection.options)

/**
 * A function that computes the tokens of all rows from their logits `[N, V]` as float32 `[N]`, or undefined where the host selects: on a
 * CPU, which has the logits, and where a row has a processor or an output that needs them.
 */
const deviceSelection = (selections: readonly Selection[], rows: readonly SequenceState[] | undefined) => {
  if (selections.every(needsArgMaxOnly)) return (logits: tf.Tensor2D): tf.Tensor1D => logits.argMax<tf.Tensor1D>(-1).toFloat()
  if (!rows || !usesTensorflowOps() || !selections.every((s) => s.onDevice && !needsLogits(s))) return undefined
  const deviceRows = rows.map(({ ids, promptLength, rng }, n) => {
    const { onDevice } = selections[n] ?? selections[0]!
    return { settings: onDevice!, ids, promptLength, uniform: rng.uniform() }
  })
  return (logits: tf.Tensor2D): tf.Tensor1D => tokensOnDevice(logits, deviceRows)
}

/** Number of most probable tokens whose log-probabilities a row of the step returns; undefined where no row returns any. */
const logprobsOfStep = (selections: readonly Selection[]): number | undefined => {
  const returning = selections.filter(({ options }) => returnsLogprobs(options))
  return returning.length > 0 ? Math.max(...returning.map(({ options }) => options.topLogprobs ?? 0)) : undefined
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
 * `rows` on a GPU by options of `deviceSampling`, only 2 N numbers are read back, and the log-probabilities that rows return, together. The
 * function throws an `InternVLError` with the tag `InvalidLogits` for a row whose logits are NaN.
 */
export const tokenSelector = async (
  logits: tf.Tensor2D,
  selections: readonly Selection[],
  { guided, rows }: StepContext = {}
): Promise<(row: SequenceState, n: number) => SelectedToken> => {
  const select = deviceSelection(selections, rows)
  const [N, V] = logits.shape
  const numTop = logprobsOfStep(selections)
  // the first logit of each row is read too: one NaN in the hidden states makes all logits of its row NaN
  const numbersOf = (tokens: tf.Tensor1D): tf.Tensor2D => {
    const columns = [tokens.reshape<tf.Tensor2D>([N, 1]), logits.slice<tf.Tensor2D>([0, 0], [N, 1])]
    return tf.concat(numTop === undefined ? columns : [...columns, logprobsOnDevice(logits, tokens, Math.min(numTop, V))], 1)
  }
  const output = select ? tf.tidy(() => numbersOf(select(logits))) : logits
  const [data, guidedData] = await Promise.all([output.data(), guided?.data()]).finally(() =>
    tf.dispose([logits, output, ...(guided ? [guided] : [])])
  )
  return (row, n) => {
    const { options: o, logitsProcessor } = selections[n] ?? selections[0]!
    const width = output.shape[1]
    if (!o.removeInvalidValues && Number.isNaN(data[n * width + (select ? 1 : 0)]!)) throw invalidLogits()
    if (select) {
      const [token, , ...logprobs] = data.subarray(n * width, (n + 1) * width)
      return { token: token!, ...(returnsLogprobs(o) ? readLogprobs(logprobs, o) : {}) }
    }
    const raw = data.slice(n * V, (n + 1) * V) as Float32Array
    const start = guidedData ? (guidedData.slice(n * V, (n + 1) * V) as Float32Array) : raw
    const processed = logitsProcessor ? logitsProcessor(row.ids, start, row.promptLength) : start
    const token = isSampling(o) ? sampleIndex(processed, row.rng.uniform()) : topIndices(processed, 1)[0]!
    const outputs = { ...(o.outputLogits ? { logits: raw } : {}), ...(o.outputScores ? { scores: processed } : {}) }
    return { ...(returnsLogprobs(o) ? withLogprobs(token, raw, o) : { token }), ...outputs }
  }
}
