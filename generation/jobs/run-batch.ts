import { dirname, resolve } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { GenerateOptions } from '../decoding/generation-options.js'
import { checkOptions } from '../decoding/options/check-options.js'
import type { CreateEngineOptions, RequestOptions } from '../engine/engine-types.js'
import { answerRows, type RowEngine } from './answer-rows.js'
import { formatOf, openAnswers } from './answers/answer-file.js'
import type { AnswerFormat } from './answers/answer-lines.js'
import { modelIdentity, shortHash } from './model-identity.js'
import type { ColumnNames } from './rows/media-columns.js'
import { isOpenAIRow } from './rows/openai-row.js'
import { openRecords, type RecordSource } from './rows/record-source.js'
import type { RowRecord, RowSettings } from './rows/row-record.js'
import { type Shard, shardRange } from './shard.js'

/** An engine that can be closed. */
export type ClosableEngine = RowEngine & { readonly close: () => Promise<void> }

/** Rows of a batch, counted. */
export interface BatchProgress {
  /** Rows with an answer or an error, those of an earlier run included. */
  readonly done: number
  readonly total: number
  /** Rows that were done before. */
  readonly resumed: number
  readonly errors: number
}

/** Options of reading and answering rows. */
export interface RowOptions {
  readonly columns?: ColumnNames | undefined
  /** Folder of relative paths of images and videos; default: the folder of the file. */
  readonly folder?: string | undefined
  /** Question of the rows that have none. */
  readonly prompt?: string | undefined
  /** System message of the rows that have none. */
  readonly system?: string | undefined
  /** Options of generation; greedy by default, and with seed 0 where they sample. */
  readonly generate?: RequestOptions | undefined
}

export interface BatchOptions extends RowOptions {
  /** File of answers. */
  readonly out: string
  /** Format of the file of answers; default: by its extension, and that of OpenAI for OpenAI's batch files. */
  readonly format?: AnswerFormat | undefined
  /** Checkpoint folder; default: the demo model. */
  readonly model?: string | undefined
  /** Options of `createEngine`. */
  readonly engine?: CreateEngineOptions | undefined
  /** Rows that are answered together; default: 8. */
  readonly batch?: number | undefined
  readonly shard?: Shard | undefined
  /** Begins again instead of continuing. */
  readonly restart?: boolean | undefined
  /** Answers the rows with errors again. */
  readonly retryErrors?: boolean | undefined
  /** Stops after the rows in progress; the same call continues. */
  readonly stop?: AbortSignal | undefined
  readonly onProgress?: ((progress: BatchProgress) => void) | undefined
  /** Starts the engine; another one in tests. */
  readonly startEngine?: ((model: string | undefined, options: CreateEngineOptions) => Promise<ClosableEngine>) | undefined
}

/** Settings of the rows of a file. Throws a `RangeError` for an option of generation that no row can have. */
export const rowSettings = (file: string, { columns = {}, folder, prompt, system, generate = {} }: RowOptions): RowSettings => {
  const sampling = generate.doSample === true ? { seed: 0, ...generate } : { doSample: false, ...generate }
  checkOptions({ ...sampling, decode: () => '' } as GenerateOptions)
  return { columns, folder: resolve(folder ?? dirname(file)), prompt, system, options: sampling }
}

/** Whether the first row is one of OpenAI's batch files. */
export const isOpenAIFile = async ({ read }: RecordSource): Promise<boolean> => {
  for await (const { record } of read(0)) return E.isRight(record) && isOpenAIRow(record.right)
  return false
}

/** Starts an engine for rows that do not continue each other, which is not given up while other rows have answers. */
export const startRowEngine = async (model: string | undefined, options: CreateEngineOptions): Promise<ClosableEngine> => {
  const { createEngine } = await import('../engine/create-engine.js')
  return createEngine(model, { maxQueue: 1_000_000, prefixCacheBytes: 0, maxRestarts: 100, ...options })
}

async function* missingRows(
  source: RecordSource,
  start: number,
  end: number,
  done: ReadonlySet<number>
): AsyncGenerator<RowRecord> {
  for await (const record of source.read(start)) {
    if (record.row >= end) return
    if (!done.has(record.row)) yield record
  }
}

/**
 * Answers every row of a file of questions, and continues an interrupted run: answers are on the disk as they come, and in the order of
 * rows at the end. A row that cannot be answered has a line with its error. Throws an `InternVLError` for files that cannot be read or
 * written, and an `EngineError` if the model cannot be run. After `stop`, `done` is less than `total`.
 *
 * `const { rows, errors } = await runBatch('questions.jsonl', { out: 'answers.jsonl', model: 'path/to/InternVL3-1B-hf' })`
 */
export const runBatch = async (file: string, options: BatchOptions): Promise<BatchProgress> => {
  const { out, model, engine: engineOptions = {}, batch = 8, shard = { index: 0, count: 1 }, onProgress, stop } = options
  const { startEngine = startRowEngine, restart, retryErrors } = options
  const source = await openRecords(file)
  const { start, end } = shardRange(source.rows, shard)
  const settings = rowSettings(file, options)
  const { folder: _, ...answering } = settings
  const answers = await openAnswers(out, {
    format: options.format ?? formatOf(out, await isOpenAIFile(source)),
    identity: {
      'file of questions': source.sha256,
      model: await modelIdentity(model, engineOptions),
      'set of options': shortHash(answering),
      shard: `${shard.index}/${shard.count}`
    },
    ...{ restart, retryErrors }
  })
  const [total, resumed] = [end - start, answers.done.size]
  const progress = (): BatchProgress => ({ done: answers.done.size, total, resumed, errors: answers.errors() })
  let [isComplete, engine]: [boolean, ClosableEngine | undefined] = [false, undefined]
  try {
    onProgress?.(progress())
    if (resumed < total) {
      engine = await startEngine(model, { ...engineOptions, maxBatch: batch, signal: stop })
      await answerRows(missingRows(source, start, end, answers.done), {
        ...{ engine, settings, batch, stop },
        onAnswer: async (answer) => {
          await answers.append(answer)
          onProgress?.(progress())
        }
      })
    }
    isComplete = answers.done.size >= total
    return progress()
  } finally {
    await engine?.close()
    await answers.close(isComplete)
  }
}
