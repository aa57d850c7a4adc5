import type { FinishReason } from '../../decoding/stopping.js'
import type { Choice, EngineResult } from '../../engine/engine-types.js'
import type { RowId } from '../rows/row-record.js'

/** The answer to one row, or its error. */
export interface RowAnswer {
  /** Index of the row in the file of questions, from 0. */
  readonly row: number
  readonly id?: RowId
  /** Null for a row with an error. */
  readonly answer: string | null
  /** Number of new tokens, the end token included. */
  readonly tokens: number
  readonly finishReason: FinishReason | null
  /**
   * Sum of the log-probabilities of the tokens, from the unprocessed logits, or the score of a beam search; rounded to 1e-4, since the
   * rows that are answered together change later digits.
   */
  readonly logprob: number | null
  readonly error: string | null
  /** The body of OpenAI's response, for rows of OpenAI's batch files. */
  readonly body?: object
}

const named = (row: number, id: RowId | undefined): Pick<RowAnswer, 'row' | 'id'> => ({
  row,
  ...(id === undefined ? {} : { id })
})

const logprobOf = ({ logprobs, score }: Choice): number | null => {
  const sum = logprobs?.reduce((total, { logprob }) => total + logprob, 0) ?? score
  return sum === undefined || !Number.isFinite(sum) ? null : Math.round(sum * 1e4) / 1e4 + 0
}

/** The first choice of a result as the answer of a row. */
export const toRowAnswer = (row: number, id: RowId | undefined, { choices }: EngineResult, body?: object): RowAnswer => {
  const choice = choices[0]!
  const { text, tokens, finishReason } = choice
  return {
    ...named(row, id),
    ...{ answer: text, tokens: tokens.length, finishReason, logprob: logprobOf(choice), error: null },
    ...(body === undefined ? {} : { body })
  }
}

/** The answer of a row that failed; the error is one line. */
export const failedAnswer = (row: number, id: RowId | undefined, error: string): RowAnswer => ({
  ...named(row, id),
  ...{ answer: null, tokens: 0, finishReason: null, logprob: null, error: error.trim().replaceAll(/\s*\n\s*/g, '; ') }
})
