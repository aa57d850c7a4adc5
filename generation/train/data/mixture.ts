import { readFile } from 'node:fs/promises'
import { dirname, isAbsolute, join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import * as t from 'io-ts'
import { errorText, type Issue, type Issues, issue, whenValid } from '../../../lib/error.js'
import { random } from '../../../lib/random.js'
import { decode } from '../../../processors/config/decode-json.js'
import { type DatasetRow, readRows } from '../../evaluate/eval-dataset.js'
import { checkRows } from './check-rows.js'
import type { SampleSize } from './sample.js'

/** One dataset of a mixture file. Source: `shell/data/*.json` (OpenGVLab/InternVL). */
export interface MixtureEntry {
  readonly name: string
  /** Folder of the images and videos. */
  readonly root: string
  /** Paths of the jsonl files. */
  readonly annotation: readonly string[]
  /** Number of times that each row occurs in an epoch; a fraction selects that share of the rows. */
  readonly repeatTime: number
  /** Whether images are compressed with JPEG of a random quality. */
  readonly augment: boolean
  readonly maxDynamicPatch?: number
  readonly length?: number
}

/** A row of training data with the options of its dataset. */
export interface TrainingRow extends DatasetRow {
  readonly dataset: string
  readonly augment: boolean
  readonly maxPatches?: number
}

/** The rows of all datasets, the repeats of each row, and the errors of rows that are left out. */
export interface TrainingData {
  readonly rows: readonly TrainingRow[]
  /** For each row the `repeat_time` of its dataset. */
  readonly repeats: readonly number[]
  /** For each row the size of its sample, where the sizes were computed. */
  readonly sizes?: readonly SampleSize[]
  readonly skipped: readonly Issue[]
}

const numberWhere = (expected: string, is: (n: number) => boolean) =>
  new t.Type<number>(
    expected,
    (v): v is number => typeof v === 'number' && is(v),
    (v, context) => (typeof v === 'number' && is(v) ? t.success(v) : t.failure(v, context)),
    t.identity
  )

const annotationCodec = t.union([t.string, t.array(t.string)], 'a jsonl file, or a list of them')
const entryCodec = t.intersection([
  t.type({ annotation: annotationCodec }),
  t.partial({
    root: t.string,
    repeat_time: numberWhere('a number above 0', (n) => n > 0 && Number.isFinite(n)),
    data_augment: t.boolean,
    max_dynamic_patch: numberWhere('a whole number above 0', (n) => Number.isInteger(n) && n > 0),
    length: numberWhere('a whole number', (n) => Number.isInteger(n) && n >= 0)
  })
])
const mixtureCodec = t.record(t.string, entryCodec)

const mixtureEntry = (file: string, name: string, entry: t.TypeOf<typeof entryCodec>): MixtureEntry => {
  const resolvePath = (path: string): string => (isAbsolute(path) ? path : join(dirname(file), path))
  return {
    name,
    root: resolvePath(entry.root ?? '.'),
    annotation: [entry.annotation].flat().map(resolvePath),
    repeatTime: entry.repeat_time ?? 1,
    augment: entry.data_augment ?? false,
    ...(entry.max_dynamic_patch === undefined ? {} : { maxDynamicPatch: entry.max_dynamic_patch }),
    ...(entry.length === undefined ? {} : { length: entry.length })
  }
}

/**
 * Reads a mixture file (OpenGVLab's meta file), `{ name: { annotation, root, repeat_time, data_augment, max_dynamic_patch, length } }`.
 * Only `annotation` is required; other keys of OpenGVLab are ignored. Paths are relative to the file.
 */
export const readMixture = (file: string): TE.TaskEither<Issues, readonly MixtureEntry[]> => {
  const failed = (message: string): Issues => [issue('Mixture', `${file}: ${message}`, { path: file })]
  return pipe(
    TE.tryCatch(
      () => readFile(file, 'utf8'),
      (error) => failed(`cannot be read (${(error as NodeJS.ErrnoException).code}).`)
    ),
    TE.chainEitherK((text) =>
      E.tryCatch(
        () => JSON.parse(text) as unknown,
        (error) => failed(`not JSON (${errorText(error)}).`)
      )
    ),
    TE.chainEitherK((json) => decode(mixtureCodec, json, file)),
    TE.map((entries) => Object.entries(entries).map(([name, entry]) => mixtureEntry(file, name, entry))),
    TE.filterOrElse(
      (entries) => entries.length > 0,
      () => failed('no dataset in this file; expected {name: {annotation, …}}.')
    )
  )
}

/** The valid rows of one dataset, and the errors of the others. */
const readEntry = async ({ name, root, annotation, augment, maxDynamicPatch, length }: MixtureEntry) => {
  const files = await Promise.all(annotation.map((file) => readRows(file, root)()))
  const read = files.flatMap((file) => (E.isRight(file) ? [file.right] : []))
  const checked = await checkRows(read.flatMap(({ rows }) => rows))
  const options = { dataset: name, augment, ...(maxDynamicPatch === undefined ? {} : { maxPatches: maxDynamicPatch }) }
  const issues = [
    ...files.flatMap((file) => (E.isLeft(file) ? file.left : [])),
    ...read.flatMap((file) => file.issues),
    ...checked.issues
  ]
  const rows = checked.rows.map((row): TrainingRow => ({ ...row, ...options }))
  if (length === undefined || issues.length > 0 || length === rows.length) return { rows, issues }
  const message = `${name}: length is ${length} in the mixture file, but ${rows.length} in ${annotation.join(', ')}.`
  return { rows, issues: [issue('Mixture', message)] }
}

/**
 * Reads the rows of all datasets. Errors: every invalid row. With `skipBad` the valid rows are returned and `skipped` holds the errors,
 * unless no row is left.
 */
export const readTrainingData =
  (entries: readonly MixtureEntry[], { skipBad = false } = {}): TE.TaskEither<Issues, TrainingData> =>
  async () => {
    const read = await Promise.all(entries.map(readEntry))
    const [skipped, rows] = [read.flatMap(({ issues }) => issues), read.flatMap((dataset) => dataset.rows)]
    const repeats = read.flatMap((dataset, i) => dataset.rows.map(() => entries[i]!.repeatTime))
    const none =
      rows.length === 0 && (skipBad || skipped.length === 0)
        ? [issue('NoRows', `${entries.map(({ name }) => name).join(', ')}: no training row.`)]
        : []
    return whenValid(skipBad && rows.length > 0 ? [] : [...skipped, ...none], () => ({ rows, repeats, skipped }))
  }

/**
 * Indices of the rows of an epoch: each row as often as the whole part of its repeat count, and for the fractional part a share of the
 * rows once more, other rows in every epoch. A function of repeats, seed and epoch; in the order of the rows, not shuffled.
 * Source: `LazySupervisedDataset`, which selects the share of a fractional `repeat_time` only once.
 */
export const epochRows = (repeats: readonly number[], seed: number, epoch = 0): readonly number[] => {
  const fraction = (i: number): number => repeats[i]! - Math.floor(repeats[i]!)
  const counts = repeats.map((times) => Math.floor(times))
  for (const share of new Set(repeats.map((_, i) => fraction(i))).values()) {
    if (share === 0) continue
    const indices = repeats.flatMap((_, i) => (fraction(i) === share ? [i] : []))
    for (const i of random(seed, epoch, 2)
      .shuffled(indices)
      .slice(0, Math.round(share * indices.length)))
      counts[i]!++
  }
  return counts.flatMap((n, i) => Array<number>(n).fill(i))
}
