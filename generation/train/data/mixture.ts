import { readFile } from 'node:fs/promises'
import { dirname, isAbsolute, join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { type Issue, type Issues, issue, whenValid } from '../../../lib/error.js'
import { random } from '../../../lib/random.js'
import { type DatasetRow, readRows } from '../../evaluate/eval-dataset.js'
import { checkRows } from './check-rows.js'
import type { SampleSize } from './sample.js'

/** One set of a meta file. Source: `shell/data/*.json` (OpenGVLab/InternVL). */
export interface DatasetEntry {
  readonly name: string
  /** Folder of its pictures. */
  readonly root: string
  readonly annotation: readonly string[]
  /** How often each row is shown an epoch; a fraction shows a share of the rows. */
  readonly repeatTime: number
  /** Whether pictures are spoilt by JPEG. */
  readonly augment: boolean
  readonly maxDynamicPatch?: number
  readonly length?: number
}

/** A row to learn from, and what its set says about it. */
export interface TrainingRow extends DatasetRow {
  readonly dataset: string
  readonly augment: boolean
  readonly maxPatches?: number
}

/** Rows of all sets, once each; how many times an epoch shows each; what was wrong with rows that are left out. */
export interface TrainingData {
  readonly rows: readonly TrainingRow[]
  /** For each row the `repeat_time` of its set. */
  readonly repeats: readonly number[]
  /** Of each row's sample, where they were measured. */
  readonly sizes?: readonly SampleSize[]
  readonly skipped: readonly Issue[]
}

const fields = ['root', 'annotation', 'repeat_time', 'data_augment', 'max_dynamic_patch', 'length'] as const

const kinds: Readonly<Record<(typeof fields)[number], (value: unknown) => boolean>> = {
  root: (v) => typeof v === 'string',
  annotation: (v) => typeof v === 'string' || (Array.isArray(v) && v.length > 0 && v.every((x) => typeof x === 'string')),
  repeat_time: (v) => typeof v === 'number' && v > 0 && Number.isFinite(v),
  data_augment: (v) => typeof v === 'boolean',
  max_dynamic_patch: (v) => Number.isInteger(v) && (v as number) > 0,
  length: (v) => Number.isInteger(v) && (v as number) >= 0
}

const wanted: Readonly<Record<(typeof fields)[number], string>> = {
  root: 'a folder',
  annotation: 'a jsonl file, or a list of them',
  repeat_time: 'a number above 0',
  data_augment: 'true or false',
  max_dynamic_patch: 'a whole number above 0',
  length: 'a whole number'
}

const entryOf = (name: string, given: unknown, file: string): E.Either<Issues, DatasetEntry> => {
  const entry = given as Record<string, unknown>
  if (typeof given !== 'object' || given === null) return E.left([issue('Meta', `${file}: ${name}: expected an object.`)])
  const wrong = fields.filter((key) => (key in entry ? !kinds[key](entry[key]) : key === 'annotation'))
  const at = (path: string): string => (isAbsolute(path) ? path : join(dirname(file), path))
  return whenValid(
    wrong.map((key) =>
      issue('Meta', `${file}: ${name}.${key}: expected ${wanted[key]}, got ${JSON.stringify(entry[key]) ?? 'nothing'}.`)
    ),
    () => ({
      name,
      root: at((entry.root as string | undefined) ?? '.'),
      annotation: [entry.annotation as string | string[]].flat().map(at),
      repeatTime: (entry.repeat_time as number | undefined) ?? 1,
      augment: (entry.data_augment as boolean | undefined) ?? false,
      ...(entry.max_dynamic_patch === undefined ? {} : { maxDynamicPatch: entry.max_dynamic_patch as number }),
      ...(entry.length === undefined ? {} : { length: entry.length as number })
    })
  )
}

/**
 * Reads a meta file, `{ name: { root, annotation, repeat_time, data_augment, max_dynamic_patch, length } }`, of which `annotation`
 * alone must be there; other keys are OpenGVLab's and say nothing here. Paths are relative to the file.
 */
export const readMeta =
  (file: string): TaskEither<Issues, readonly DatasetEntry[]> =>
  async () => {
    const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => error)
    if (typeof text !== 'string') return E.left([issue('Meta', `${file}: it can't be read (${text.code}).`, { path: file })])
    let json: unknown
    try {
      json = JSON.parse(text)
    } catch (error) {
      return E.left([issue('Meta', `${file}: not JSON (${(error as Error).message}).`, { path: file })])
    }
    const entries = Object.entries(typeof json === 'object' && json !== null ? json : {})
    if (entries.length === 0)
      return E.left([issue('Meta', `${file}: no set in it; expected {name: {annotation, …}}.`, { path: file })])
    const read = entries.map(([name, entry]) => entryOf(name, entry, file))
    return whenValid(
      read.flatMap((entry) => (E.isLeft(entry) ? entry.left : [])),
      () => read.flatMap((entry) => (E.isRight(entry) ? [entry.right] : []))
    )
  }

/** Rows of one set, those that are sound. */
const readEntry = async ({ name, root, annotation, augment, maxDynamicPatch, length }: DatasetEntry) => {
  const files = await Promise.all(annotation.map((file) => readRows(file, root)()))
  const read = files.flatMap((file) => (E.isRight(file) ? [file.right] : []))
  const checked = await checkRows(read.flatMap(({ rows }) => rows))
  const own = { dataset: name, augment, ...(maxDynamicPatch === undefined ? {} : { maxPatches: maxDynamicPatch }) }
  const issues = [
    ...files.flatMap((file) => (E.isLeft(file) ? file.left : [])),
    ...read.flatMap((file) => file.issues),
    ...checked.issues
  ]
  const rows = checked.rows.map((row): TrainingRow => ({ ...row, ...own }))
  const short = length !== undefined && length !== rows.length + issues.length && issues.length === 0
  const other = issue('Meta', `${name}: length is ${length} in the meta file, ${rows.length} in ${annotation.join(', ')}.`)
  return { rows, issues: short ? [...issues, other] : issues }
}

/**
 * The rows of all sets. Errors: everything that is wrong with them, together; with `skipBad` the sound rows go on, and `skipped` says
 * what was left out, unless nothing is left.
 */
export const readTraining =
  (entries: readonly DatasetEntry[], { skipBad = false } = {}): TaskEither<Issues, TrainingData> =>
  async () => {
    const read = await Promise.all(entries.map(readEntry))
    const [skipped, rows] = [read.flatMap(({ issues }) => issues), read.flatMap((set) => set.rows)]
    const repeats = read.flatMap((set, i) => set.rows.map(() => entries[i]!.repeatTime))
    const none =
      rows.length === 0 && (skipBad || skipped.length === 0)
        ? [issue('NoRows', `${entries.map(({ name }) => name).join(', ')}: no row to learn from.`)]
        : []
    return whenValid(skipBad && rows.length > 0 ? [] : [...skipped, ...none], () => ({ rows, repeats, skipped }))
  }

/**
 * The rows of an epoch, by index: each as often as its repeat count's whole part, and the rest's share of them once more, other
 * ones every epoch. A function of repeats, seed and epoch; in the order of the rows, to be shuffled.
 * Source: `LazySupervisedDataset`, whose share of a fractional `repeat_time` is drawn once.
 */
export const epochRows = (repeats: readonly number[], seed: number, epoch = 0): readonly number[] => {
  const rest = (i: number): number => repeats[i]! - Math.floor(repeats[i]!)
  const counts = repeats.map((times) => Math.floor(times))
  for (const share of new Set(repeats.map((_, i) => rest(i))).values()) {
    if (share === 0) continue
    const indices = repeats.flatMap((_, i) => (rest(i) === share ? [i] : []))
    for (const i of random(seed, epoch, 2)
      .shuffled(indices)
      .slice(0, Math.round(share * indices.length)))
      counts[i]!++
  }
  return counts.flatMap((n, i) => Array<number>(n).fill(i))
}
