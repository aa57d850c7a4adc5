import { nameText } from '../../../lib/error.js'
import { isRecord } from '../../../lib/plain-object.js'
import type { RowAnswer } from './row-answer.js'

/** The row of a line, without its answer. */
export interface LineHead {
  readonly row: number
  readonly isError: boolean
}

/** A line format of answers. */
export interface AnswerLines {
  /** One line without its end. */
  readonly toLine: (answer: RowAnswer) => string
  /** The row of a line; undefined for a text that is no line of this format. */
  readonly readHead: (line: string) => LineHead | undefined
}

const parsed = (line: string): Readonly<Record<string, unknown>> | undefined => {
  try {
    const json: unknown = JSON.parse(line)
    return isRecord(json) ? json : undefined
  } catch {
    return undefined
  }
}

const head = (row: unknown, error: unknown): LineHead | undefined =>
  Number.isSafeInteger(row) ? { row: row as number, isError: error !== null } : undefined

const answerLines: AnswerLines = {
  toLine: ({ body: _, ...answer }) => JSON.stringify(answer),
  readHead: (line) => {
    const json = parsed(line)
    return json && head(json.row, json.error)
  }
}

const responseOf = ({ row, error, body }: RowAnswer) => ({
  status_code: error === null ? 200 : 400,
  request_id: `req_${row}`,
  body: error === null ? (body ?? {}) : { error: { message: error, type: 'invalid_request_error', param: null, code: null } }
})

/** Source: the Batch API of OpenAI; vLLM's `run_batch` writes failed rows likewise into the same file. */
const openAILines: AnswerLines = {
  toLine: (answer) =>
    JSON.stringify({
      id: `batch_req_${answer.row}`,
      custom_id: answer.id === undefined ? null : String(answer.id),
      response: responseOf(answer),
      error: answer.error === null ? null : { code: 'invalid_request', message: answer.error }
    }),
  readHead: (line) => {
    const json = parsed(line)
    const [, row] = /^batch_req_(\d+)$/.exec(nameText(json?.id)) ?? []
    return json && head(row === undefined ? undefined : Number(row), json.error)
  }
}

/** Formats of the file of answers. `csv` and `parquet` are written from lines of `jsonl` at the end. */
export const answerFormats = ['jsonl', 'openai', 'csv', 'parquet'] as const
export type AnswerFormat = (typeof answerFormats)[number]

/** The lines of which a file of answers is made while rows come. */
export const linesOf = (format: AnswerFormat): AnswerLines => (format === 'openai' ? openAILines : answerLines)
