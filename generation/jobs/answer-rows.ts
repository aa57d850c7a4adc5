import * as E from 'fp-ts/lib/Either.js'
import { errorText } from '../../lib/error.js'
import { itemsOf } from '../../processors/text/messages.js'
import { EngineCrashedError, EngineError } from '../engine/engine-errors.js'
import type { EngineRequest, GenerationEngine } from '../engine/engine-types.js'
import { failedAnswer, type RowAnswer, toRowAnswer } from './answers/row-answer.js'
import type { RowId, RowRecord, RowRequest, RowSettings } from './rows/row-record.js'
import { rowId, rowRequest } from './rows/row-request.js'

/** The parts of an engine that answer rows. */
export type RowEngine = Pick<GenerationEngine, 'submit' | 'tokenize' | 'info'>

export interface AnswerRowsOptions {
  readonly engine: RowEngine
  readonly settings: RowSettings
  /** Rows that are answered together. */
  readonly batch: number
  /** Ends the work after the rows in progress. */
  readonly stop?: AbortSignal | undefined
  /** Called with every answer, in any order. A slow one holds back further rows. */
  readonly onAnswer: (answer: RowAnswer) => Promise<void> | void
}

/** A row with its request. */
interface PreparedRow {
  readonly row: number
  readonly id: RowId | undefined
  readonly request: E.Either<string, RowRequest>
  /** Tokens of the prompt, about; rows of like length are answered together. */
  readonly length: number
}

const isRemote = ({ messages = [] }: EngineRequest): boolean =>
  messages.flatMap(itemsOf).some((item) => item.type !== 'text' && JSON.stringify(item).includes('"http'))

const textLength = ({ messages = [] }: EngineRequest): number =>
  messages.flatMap(itemsOf).reduce((sum, item) => sum + (item.type === 'text' ? item.text.length / 4 : 256), 0)

/** Tokens of a prompt. Remote images are not downloaded for that, and wrong ones count as none: their row has its error later. */
const promptLength = async (engine: RowEngine, request: EngineRequest): Promise<number> => {
  if (isRemote(request)) return textLength(request)
  const { messages, options } = request
  return engine.tokenize({ messages, options }).then(
    ({ ids }) => ids.length,
    () => 0
  )
}

const prepareRow = async (record: RowRecord, { engine, settings }: AnswerRowsOptions): Promise<PreparedRow> => {
  const request = E.mapLeft((issues: readonly { readonly message: string }[]) => issues.map(({ message }) => message).join('\n'))(
    rowRequest(record, settings, engine.info)
  )
  const length = E.isRight(request) ? await promptLength(engine, request.right.request) : 0
  return { row: record.row, id: rowId(record, settings), request, length }
}

/** Runs `work` for every item, `limit` at a time. The first error, and `stop`, end all after their current item. */
const forEachOf = async <A>(
  items: readonly A[],
  limit: number,
  stop: AbortSignal | undefined,
  work: (item: A) => Promise<void>
): Promise<void> => {
  let next = 0
  const run = async (): Promise<void> => {
    while (next < items.length && !stop?.aborted) await work(items[next++]!)
  }
  const runs = Array.from({ length: Math.min(limit, items.length) }, () =>
    run().catch((error) => {
      next = items.length
      throw error
    })
  )
  const [failure] = (await Promise.allSettled(runs)).filter((settled) => settled.status === 'rejected')
  if (failure) throw failure.reason
}

/** Asks the engine. Throws an `EngineError` for one of the engine; an error of the row is its answer. */
const answerRow = async ({ row, id, request }: PreparedRow, { engine }: AnswerRowsOptions): Promise<RowAnswer> => {
  if (E.isLeft(request)) return failedAnswer(row, id, request.left)
  const { request: asked, toBody } = request.right
  try {
    const result = await engine.submit(asked).result()
    return toRowAnswer(row, id, result, toBody?.(result))
  } catch (error) {
    if (error instanceof EngineError) throw error
    return failedAnswer(row, id, errorText(error))
  }
}

/** Times that a row may be in the process alone when the process ends, before the row is given up. */
const MAX_CRASHES = 2

/** Answers rows of which one ended the process, each alone: the one that ends the process again has an error, the others have answers. */
const answerAlone = async (rows: readonly PreparedRow[], options: AnswerRowsOptions): Promise<void> => {
  for (const row of rows) {
    if (options.stop?.aborted) return
    for (let crashes = 1; ; crashes++)
      try {
        await options.onAnswer(await answerRow(row, options))
        break
      } catch (error) {
        if (!(error instanceof EngineCrashedError)) throw error
        if (crashes < MAX_CRASHES) continue
        await options.onAnswer(failedAnswer(row.row, row.id, `The process of the model ends at this row: ${error.message}`))
        break
      }
  }
}

/** Rows of which the longest are answered first; also the number of rows in memory. */
const windowOf = (batch: number): number => Math.max(256, 32 * batch)

const answerWindow = async (records: readonly RowRecord[], options: AnswerRowsOptions): Promise<void> => {
  const { batch, onAnswer, stop } = options
  const rows: PreparedRow[] = []
  await forEachOf(records, batch, stop, async (record) => void rows.push(await prepareRow(record, options)))
  const crashed: PreparedRow[] = []
  const sorted = rows.toSorted((a, b) => b.length - a.length || a.row - b.row)
  await forEachOf(sorted, batch, stop, async (row) => {
    try {
      await onAnswer(await answerRow(row, options))
    } catch (error) {
      if (!(error instanceof EngineCrashedError)) throw error
      crashed.push(row)
    }
  })
  await answerAlone(crashed, options)
}

/**
 * Answers rows, `batch` at a time; within a window of rows those with prompts of like length are together. A row that cannot be
 * answered has an error as its answer. After `stop` the rows that were not begun have no answer. Throws an `EngineError` after which no
 * row can be answered.
 */
export const answerRows = async (
  records: AsyncIterable<RowRecord> | Iterable<RowRecord>,
  options: AnswerRowsOptions
): Promise<void> => {
  const size = windowOf(options.batch)
  let window: RowRecord[] = []
  for await (const record of records) {
    if (options.stop?.aborted) return
    window.push(record)
    if (window.length < size) continue
    await answerWindow(window, options)
    window = []
  }
  await answerWindow(window, options)
}
