import { realpath } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { InternVLError, type Issue, type Issues, issue } from '../../lib/error.js'
import type { InternVLCheckpoint } from '../checkpoint/load.js'
import { batchesIn, needsSizes } from './data/dataloader.js'
import { type MeasureOptions, measureRows } from './data/measure-rows.js'
import { type DatasetEntry, readMeta, readTraining, type TrainingData } from './data/mixture.js'
import { digestOf, resumeIssues } from './resume.js'
import { preferenceWeights, type TrainConfig } from './train-config.js'
import { type Trainable, trainable } from './trainable.js'

const entryOf = (file: string): DatasetEntry => ({
  ...{ name: file, root: dirname(file), annotation: [file], repeatTime: 1, augment: false }
})

const readData = async (files: readonly string[], skipBad: boolean): Promise<E.Either<Issues, TrainingData>> => {
  const read = await Promise.all(
    files.map(async (file) =>
      file.endsWith('.json') ? readMeta(file)() : E.right<Issues, readonly DatasetEntry[]>([entryOf(file)])
    )
  )
  const issues = read.flatMap((entries): readonly Issue[] => (E.isLeft(entries) ? entries.left : []))
  if (issues.length > 0) return E.left(issues as unknown as Issues)
  return readTraining(read.flatMap((entries) => (E.isRight(entries) ? entries.right : [])), { skipBad })() // biome-ignore format: one line
}

/** Pairs need two answers. */
const pairIssues = (data: TrainingData, kind: TrainConfig['loss.kind']): readonly Issue[] =>
  kind === 'sft'
    ? []
    : data.rows
        .filter(({ rejected }) => rejected === undefined)
        .map(({ where, id }) => issue('NoPair', `${where ?? id}: ${kind} needs a chosen and a rejected answer; this row has one`))

/** The model is read again, as the reference and when a run is resumed. */
const outputIssues = async ({ dir }: InternVLCheckpoint, { output }: TrainConfig): Promise<readonly Issue[]> => {
  const [model, target] = await Promise.all([dir, output].map((path) => realpath(path).catch(() => resolve(path))))
  return model === target
    ? [issue('TargetRefused', `${output}: it is the folder of the model that is trained; give another output`, { file: output })]
    : []
}

/** Settings that do not go together. */
const settingIssues = (c: TrainConfig): readonly Issue[] => {
  const kind = c['loss.kind']
  const unused = (['loss.dpo', 'loss.bco', 'loss.nll'] as const).filter((key) => c[key] !== null && kind === 'sft')
  const rules: readonly (readonly [isBroken: boolean, says: string])[] = [
    [c['batch.packing'] && kind !== 'sft', `batch.packing: answers alone are packed, not the pairs of ${kind}; set it to false`],
    [
      c['batch.packing'] && c['batch.grouped'],
      'batch.grouped: packed rows are of like length already; set it or batch.packing to false'
    ],
    [
      c['lora.alpha'] !== null && c['lora.rank'] === null,
      'lora.alpha: there is no LoRA without lora.rank; set that too, or neither'
    ],
    ...unused.map((key) => [true, `${key}: sft has no such term; set loss.kind to dpo or mpo`] as const),
    [
      kind !== 'sft' && Object.values(preferenceWeights(c)).every((weight) => weight === 0),
      'loss: loss.dpo, loss.bco and loss.nll all weigh 0; nothing would be learned'
    ],
    [
      c['batch.maxTiles'] !== null && !c['batch.packing'],
      'batch.maxTiles: it is of packed rows; set batch.packing, or batch.maxPatches for the tiles of a picture'
    ]
  ]
  return rules.flatMap(([isBroken, says]) => (isBroken ? [issue('Setting', says)] : []))
}

/** What a run is made of. */
export interface Prepared {
  readonly parts: Trainable
  readonly data: TrainingData
  readonly heldOut: TrainingData | undefined
  /** What tells the data from others. */
  readonly digest: string
}

export interface CheckOptions extends Pick<MeasureOptions, 'skipBad'> {
  readonly checkpoints: string
  readonly resume?: boolean
  /** Told while samples are measured, for packing and length groups. */
  readonly onMeasure?: ((done: number, total: number) => void) | undefined
}

type Read = E.Either<Issues, TrainingData | undefined>

const issuesOf = (x: E.Either<Issues, unknown>): readonly Issue[] => (E.isLeft(x) ? x.left : [])

const emptyIssues = (read: Read, c: TrainConfig): readonly Issue[] =>
  E.isRight(read) && read.right && batchesIn(read.right, { config: { ...c, 'batch.packing': false } }, 1) === 0
    ? [issue('NoRows', 'data: an epoch shows no row; take a larger repeat_time')]
    : []

/** Data with the sizes of their samples, where batches are made by them. */
const measured = async (internvl: InternVLCheckpoint, c: TrainConfig, read: Read, o: CheckOptions): Promise<Read> => {
  if (!needsSizes(c) || E.isLeft(read) || read.right === undefined) return read
  return measureRows(internvl.processor, read.right, { config: c, skipBad: o.skipBad ?? false, onProgress: o.onMeasure })()
}

/**
 * Everything that can be wrong, looked at before the first step. `settings` are what is kept with checkpoints. Throws an
 * `InternVLError` with all that is.
 */
export const prepared = async (
  internvl: InternVLCheckpoint,
  c: TrainConfig,
  settings: TrainConfig,
  o: CheckOptions
): Promise<Prepared> => {
  const skipBad = o.skipBad ?? false
  const parts = trainable(internvl.params, c)
  const data = await measured(internvl, c, await readData([c.data].flat(), skipBad), o)
  const heldOut = await measured(internvl, c, c.heldOut === null ? E.right(undefined) : await readData([c.heldOut], skipBad), o)
  const digest = E.isRight(data) && data.right ? digestOf(data.right) : undefined
  const issues = [
    ...settingIssues(c),
    ...[parts, data, heldOut].flatMap((x) => issuesOf(x)),
    ...[data, heldOut].flatMap((read) => (E.isRight(read) && read.right ? pairIssues(read.right, c['loss.kind']) : [])),
    ...emptyIssues(data, c),
    ...(await outputIssues(internvl, c)),
    ...(await resumeIssues(o.checkpoints, o.resume ?? false, settings, digest))
  ]
  if (issues.length > 0) throw new InternVLError(issues as unknown as Issues)
  const right = <A>(x: E.Either<Issues, A>): A => (x as E.Right<A>).right
  return { parts: right(parts), data: right(data)!, heldOut: right(heldOut), digest: digest! }
}
