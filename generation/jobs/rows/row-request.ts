import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import { type Issues, issue } from '../../../lib/error.js'
import type { Messages } from '../../../processors/text/messages.js'
import type { EngineInfo, EngineRequest, RequestOptions } from '../../engine/engine-types.js'
import { rowFromJson } from '../../evaluate/dataset-row.js'
import { type ColumnNames, columnValue, defaultColumns, mediaSources } from './media-columns.js'
import { isOpenAIRow, openAIRequest } from './openai-row.js'
import type { RowId, RowRecord, RowRequest, RowSettings } from './row-record.js'

type Json = Readonly<Record<string, unknown>>

/** The id of a row; undefined where it has none. */
export const rowId = ({ record }: RowRecord, { columns }: Pick<RowSettings, 'columns'>): RowId | undefined => {
  const id = E.isRight(record) ? columnValue(record.right, 'id', columns) : undefined
  return typeof id === 'string' || typeof id === 'number' ? id : undefined
}

const isConversation = ({ conversations, messages }: Json): boolean => Array.isArray(conversations) || Array.isArray(messages)

/** The names under which `columnValue` looks for a question, for an error. */
const promptNames = ({ prompt }: ColumnNames): string => prompt ?? defaultColumns.prompt.join(', ')

/** The messages of the user: the conversation of the row, or its question. Left with one sentence for a row without either. */
const turnsOf = (record: Json, { columns, prompt }: RowSettings): E.Either<string, Json> => {
  if (columns.prompt === undefined && isConversation(record)) {
    const { conversations, messages } = record
    return E.right(conversations === undefined ? { messages } : { conversations })
  }
  const question = columnValue(record, 'prompt', columns) ?? prompt
  if (typeof question === 'string' || typeof question === 'number')
    return E.right({ messages: [{ role: 'user', content: String(question) }] })
  return question === undefined
    ? E.left(`no question; expected a column ${promptNames(columns)}, or messages, or --prompt for all rows`)
    : E.left(`the question in ${promptNames(columns)} is not a text`)
}

/** The prompt of a conversation: without an answer at its end. */
const promptOf = (messages: Messages): Messages => (messages.at(-1)?.role === 'assistant' ? messages.slice(0, -1) : messages)

const withSystem = (messages: Messages, system: string | undefined): Messages =>
  system === undefined || messages[0]?.role === 'system' ? messages : [{ role: 'system', content: system }, ...messages]

/** A row of questions or conversations. */
const plainRequest = (record: Json, where: string, settings: RowSettings): E.Either<Issues, EngineRequest> =>
  pipe(
    turnsOf(record, settings),
    E.mapLeft((message): Issues => [issue('BatchRow', `${where}: ${message}`)]),
    E.chain((turns) => {
      const images = mediaSources(columnValue(record, 'image', settings.columns))
      const videos = mediaSources(columnValue(record, 'video', settings.columns))
      return rowFromJson({ ...turns, images, videos }, where, settings.folder)
    }),
    E.map(({ messages }) => ({ messages: withSystem(promptOf(messages), settings.system) }))
  )

/** The options of a row: those of all rows, its own seed, and log-probabilities of the tokens. */
const optionsOf = ({ seed, ...options }: RequestOptions, row: number): RequestOptions => ({
  ...options,
  ...(seed === undefined ? {} : { seed: typeof seed === 'number' ? seed + row : seed }),
  outputLogprobs: true
})

/** The request of a row. Issues name the file and the line. */
export const rowRequest = (
  { row, where, record }: RowRecord,
  settings: RowSettings,
  info: EngineInfo
): E.Either<Issues, RowRequest> => {
  if (E.isLeft(record)) return E.left([issue('BatchRow', `${where}: ${record.left}`)])
  const options = optionsOf(settings.options, row)
  if (isOpenAIRow(record.right)) return openAIRequest(record.right, { row, where, options, info })
  return pipe(
    plainRequest(record.right, where, settings),
    E.map((request) => ({ request: { ...request, options } }))
  )
}
