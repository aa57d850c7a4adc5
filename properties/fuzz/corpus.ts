import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Problem } from './verdict.js'

/** Inputs that were findings, replayed by `npm test`. */
const corpusFolder = fileURLToPath(new URL('corpus', import.meta.url))

/** An input that broke a promise, and how. */
export interface CorpusEntry {
  readonly kind: string
  readonly problem: Problem
  /** The first line of the finding. */
  readonly detail: string
  readonly seed: number
  readonly index: number
  readonly input: unknown
}

/** The shortest unit of which a text is made, and the number of repetitions; `undefined` for texts that do not repeat a short unit. */
const repetition = (text: string): readonly [unit: string, count: number] | undefined => {
  for (let length = 1; length <= 16 && text.length > 100; length++) {
    const count = text.length / length
    if (Number.isInteger(count) && text.slice(0, length).repeat(count) === text) return [text.slice(0, length), count]
  }
  return undefined
}

/** Plain data as JSON: numbers that JSON lacks, bytes, `undefined` and repetitive texts become objects with one key that starts with `$`. */
const toJson = (value: unknown): unknown => {
  if (value === undefined) return { $undefined: true }
  if (typeof value === 'number') return Number.isFinite(value) && !Object.is(value, -0) ? value : { $number: Object.is(value, -0) ? '-0' : String(value) } // biome-ignore format: one line
  if (value instanceof Uint8Array) return { $bytes: Buffer.from(value).toString('base64') }
  if (Array.isArray(value)) return value.map(toJson)
  if (typeof value === 'string') {
    const repeated = repetition(value)
    return repeated ? { $repeat: repeated } : value
  }
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, toJson(inner)]))
}

const fromJson = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(fromJson)
  if (typeof value !== 'object' || value === null) return value
  const { $undefined, $number, $bytes, $repeat } = value as Record<string, unknown>
  if ($undefined) return undefined
  if (typeof $number === 'string') return Number($number)
  if (typeof $bytes === 'string') return new Uint8Array(Buffer.from($bytes, 'base64'))
  if (Array.isArray($repeat)) return String($repeat[0]).repeat(Number($repeat[1]))
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, fromJson(inner)]))
}

export const corpusText = (entry: CorpusEntry): string => `${JSON.stringify(toJson(entry), null, 1)}\n`
export const parseEntry = (text: string): CorpusEntry => fromJson(JSON.parse(text)) as CorpusEntry

/** Writes an entry under a name made of its kind, problem and content. Returns the path. */
export const writeEntry = (entry: CorpusEntry, folder: string = corpusFolder): string => {
  const hash = createHash('sha256')
    .update(corpusText({ ...entry, seed: 0, index: 0, detail: '' }))
    .digest('hex')
    .slice(0, 8)
  const path = join(folder, `${entry.kind}-${entry.problem}-${hash}.json`)
  writeFileSync(path, corpusText(entry))
  return path
}

/** The entries of a folder, by file name. */
export const readCorpus = (folder: string = corpusFolder): ReadonlyMap<string, CorpusEntry> =>
  new Map(
    readdirSync(folder)
      .filter((name) => name.endsWith('.json'))
      .sort()
      .map((name) => [name, parseEntry(readFileSync(join(folder, name), 'utf8'))])
  )
