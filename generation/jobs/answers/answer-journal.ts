import { createReadStream } from 'node:fs'
import { type FileHandle, open, truncate } from 'node:fs/promises'
import { dirname } from 'node:path'
import { syncFolder } from '../../../lib/files.js'
import type { AnswerLines } from './answer-lines.js'
import type { RowAnswer } from './row-answer.js'

/** A line of a file of answers by its position in bytes. */
export interface LinePosition {
  readonly row: number
  readonly isError: boolean
  readonly start: number
  /** Length with the line's end. */
  readonly length: number
}

/** The lines of answers of a file in its order. A line that was cut off, or is no answer, is left out. */
export async function* scanAnswers(file: string, { readHead }: AnswerLines): AsyncGenerator<LinePosition> {
  let rest = Buffer.alloc(0)
  let start = 0
  for await (const chunk of createReadStream(file, { highWaterMark: 2 ** 20 })) {
    const bytes = Buffer.concat([rest, chunk as Buffer])
    let from = 0
    for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10, from)) {
      const head = readHead(bytes.toString('utf8', from, end))
      const length = end + 1 - from
      if (head) yield { ...head, start, length }
      start += length
      from = end + 1
    }
    rest = bytes.subarray(from)
  }
}

/** A file of answers that grows line by line. */
export interface AnswerJournal {
  /** Rows that have an answer. */
  readonly done: ReadonlySet<number>
  readonly errors: () => number
  /** Resolves when the line is on the disk. A row that has an answer is not written again. */
  readonly append: (answer: RowAnswer) => Promise<void>
  readonly close: () => Promise<void>
}

/** Appends texts; those that come while the disk is busy are written and flushed together. */
const groupedWriter = (handle: FileHandle) => {
  let waiting: string[] = []
  let busy: Promise<void> = Promise.resolve()
  let next: Promise<void> | undefined
  const write = async (): Promise<void> => {
    next = undefined
    const texts = waiting
    waiting = []
    await handle.appendFile(texts.join(''))
    await handle.datasync()
  }
  return {
    append: (text: string): Promise<void> => {
      waiting.push(text)
      if (!next) {
        next = busy.then(write)
        busy = next
        busy.catch(() => undefined) // the callers of append have the error
      }
      return next
    },
    whenIdle: () => busy.catch(() => undefined)
  }
}

/**
 * Opens a file of answers to append to: its rows are done, a line that was cut off is removed. With `retryErrors` the rows with errors
 * are not done; their lines stay until `restoreOrder`, which takes the last line of a row.
 */
export const openJournal = async (
  file: string,
  lines: AnswerLines,
  { retryErrors = false }: { readonly retryErrors?: boolean } = {}
): Promise<AnswerJournal> => {
  const handle = await open(file, 'a')
  await syncFolder(dirname(file))
  const isError = new Map<number, boolean>()
  let end = 0
  for await (const line of scanAnswers(file, lines)) {
    isError.set(line.row, line.isError)
    end = line.start + line.length
  }
  if ((await handle.stat()).size > end) await truncate(file, end)
  const done = new Set([...isError].flatMap(([row, failed]) => (failed && retryErrors ? [] : [row])))
  let errors = [...isError].filter(([row, failed]) => failed && done.has(row)).length
  const writer = groupedWriter(handle)
  return {
    done,
    errors: () => errors,
    append: async (answer) => {
      if (done.has(answer.row)) return
      done.add(answer.row)
      if (answer.error !== null) errors++
      await writer.append(`${lines.toLine(answer)}\n`)
    },
    close: async () => {
      await writer.whenIdle()
      await handle.close()
    }
  }
}
