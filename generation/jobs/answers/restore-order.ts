import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { syncFolder } from '../../../lib/files.js'
import { scanAnswers } from './answer-journal.js'
import type { AnswerLines } from './answer-lines.js'

/** The last line of every row, in the order of rows. */
const orderedLines = async (file: string, lines: AnswerLines) => {
  const byRow = new Map<number, { readonly start: number; readonly length: number }>()
  let [count, last, isOrdered] = [0, -1, true]
  for await (const { row, start, length } of scanAnswers(file, lines)) {
    byRow.set(row, { start, length })
    isOrdered &&= row > last
    last = row
    count++
  }
  const ordered = [...byRow].sort(([a], [b]) => a - b).map(([, position]) => position)
  return { ordered, isOrdered: isOrdered && count === ordered.length }
}

/** Writes a file beside `file` and puts it in the place of `file` when it is complete and on the disk. */
export const replaceFile = async (
  file: string,
  write: (handle: FileHandle, temporary: string) => Promise<void>
): Promise<void> => {
  const temporary = `${file}.${process.pid}.tmp`
  const handle = await open(temporary, 'w')
  try {
    await write(handle, temporary)
    await handle.sync()
    await handle.close()
    await rename(temporary, file)
    await syncFolder(dirname(file))
  } catch (error) {
    await handle.close().catch(() => undefined)
    await rm(temporary, { force: true })
    throw error
  }
}

/** Largest file in bytes that is read whole; of a larger one every line is read by itself. */
const MAX_WHOLE = 512 * 2 ** 20

/** Lines of a file of answers in the order of rows, one for each row. */
export async function* readInOrder(file: string, lines: AnswerLines): AsyncGenerator<string> {
  const { ordered } = await orderedLines(file, lines)
  const handle = await open(file, 'r')
  try {
    const whole = (await handle.stat()).size <= MAX_WHOLE ? await handle.readFile() : undefined
    for (const { start, length } of ordered) {
      const line = whole?.subarray(start, start + length) ?? (await handle.read(Buffer.alloc(length), 0, length, start)).buffer
      yield line.toString('utf8')
    }
  } finally {
    await handle.close()
  }
}

/** Bytes that are written at once. */
const BLOCK = 2 ** 20

/** Puts the lines of a file of answers into the order of rows; a file in order is not touched. */
export const restoreOrder = async (file: string, lines: AnswerLines): Promise<void> => {
  const { isOrdered } = await orderedLines(file, lines)
  if (isOrdered) return
  await replaceFile(file, async (handle) => {
    let block = ''
    for await (const line of readInOrder(file, lines)) {
      block += line
      if (block.length < BLOCK) continue
      await handle.appendFile(block)
      block = ''
    }
    await handle.appendFile(block)
  })
}
