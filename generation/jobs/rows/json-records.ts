import { createReadStream } from 'node:fs'
import { readFile } from 'node:fs/promises'
import * as E from 'fp-ts/lib/Either.js'
import { errorText, InternVLError, issue } from '../../../lib/error.js'
import { isRecord } from '../../../lib/plain-object.js'
import { countRecords, type ReadRecords, type RecordReader, type RowRecord } from './row-record.js'

/** Lines of a text file without their ends. Unlike `node:readline`, U+2028 in a JSON text ends no line. */
async function* linesOf(file: string): AsyncGenerator<string> {
  let [rest, isFirst] = ['', true]
  for await (const chunk of createReadStream(file, { encoding: 'utf8', highWaterMark: 2 ** 18 })) {
    const lines = `${rest}${isFirst ? (chunk as string).replace(/^\uFEFF/, '') : chunk}`.split('\n')
    isFirst = false
    rest = lines.pop()!
    yield* lines
  }
  if (rest !== '') yield rest
}

const toRecord = (json: unknown): RowRecord['record'] => (isRecord(json) ? E.right(json) : E.left('not a JSON object'))

/** The record of one line of a jsonl file. */
const parseLine = (line: string): RowRecord['record'] => {
  try {
    return toRecord(JSON.parse(line))
  } catch (error) {
    return E.left(`not JSON (${errorText(error)})`)
  }
}

/** A jsonl file; blank lines are no rows. */
export const jsonlReader = (file: string): RecordReader => {
  const read: ReadRecords = async function* (start) {
    let [row, number] = [0, 0]
    for await (const line of linesOf(file)) {
      number++
      if (line.trim() === '') continue
      if (row >= start) yield { row, where: `${file}:${number}`, record: parseLine(line) }
      row++
    }
  }
  const count = async (): Promise<number> => {
    let rows = 0
    for await (const line of linesOf(file)) if (line.trim() !== '') rows++
    return rows
  }
  return { read, count }
}

const readArray = async (file: string): Promise<readonly unknown[]> => {
  try {
    return JSON.parse((await readFile(file, 'utf8')).replace(/^\uFEFF/, ''))
  } catch (error) {
    throw new InternVLError([issue('DatasetFile', `${file}: not JSON (${errorText(error)})`, { path: file })])
  }
}

/** A file with one JSON array of rows, such as LLaVA's. */
export const arrayReader = (file: string): RecordReader => {
  const read: ReadRecords = async function* (start) {
    for (const [row, json] of (await readArray(file)).entries())
      if (row >= start) yield { row, where: `${file}[${row}]`, record: toRecord(json) }
  }
  return { read, count: () => countRecords(read) }
}
