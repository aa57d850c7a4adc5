import { mkdir, mkdtemp, realpath, rm } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { sequenceS } from 'fp-ts/lib/Apply.js'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as RA from 'fp-ts/lib/ReadonlyArray.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import {
  getOrThrow,
  InternVLError,
  type Issue,
  type Issues,
  issue,
  taskValidation,
  validation,
  whenValid
} from '../../lib/error.js'
import { writeFailed } from '../../lib/safetensors/write.js'
import type { InternVLCheckpoint } from '../checkpoint/load.js'
import { isJsonArray } from '../evaluate/eval-dataset.js'
import { countBatches, needsSizes } from './data/dataloader.js'
import { type MixtureEntry, readMixture, readTrainingData, type TrainingData } from './data/mixture.js'
import { type SampleSizesOptions, sampleSizes } from './data/sample-sizes.js'
import { dataDigest, resumeIssues } from './resume.js'
import { preferenceWeights, type TrainConfig } from './train-config.js'
import { splitParameters, type Trainable } from './trainable.js'

/** The validated inputs of a run. */
export interface PreflightResult {
  readonly parts: Trainable
  readonly data: TrainingData
  readonly validation: TrainingData | undefined
  readonly dataDigest: string
}

export interface PreflightOptions extends Pick<SampleSizesOptions, 'skipBad'> {
  readonly checkpoints: string
  readonly resume?: boolean
  /** Whether this process writes output and checkpoints, which are checked then. Default: true; of several workers, only worker 0. */
  readonly writes?: boolean
  /** Called while sample sizes are computed for packing and length grouping. */
  readonly onSizeProgress?: ((done: number, total: number) => void) | undefined
}

const datasetEntry = (file: string): MixtureEntry => ({
  ...{ name: file, root: dirname(file), annotation: [file], repeatTime: 1, augment: false }
})

/** The datasets of a file: a mixture file lists several; a jsonl file or a JSON array of rows is one dataset. */
const entriesOf = (file: string): TE.TaskEither<Issues, readonly MixtureEntry[]> =>
  pipe(
    TE.fromTask(async () => file.endsWith('.json') && !(await isJsonArray(file))),
    TE.chain((isMixture) => (isMixture ? readMixture(file) : TE.right([datasetEntry(file)])))
  )

/** The rows of all files. */
const readData = (files: readonly string[], skipBad: boolean): TE.TaskEither<Issues, TrainingData> =>
  pipe(
    files,
    RA.traverse(taskValidation)(entriesOf),
    TE.chain((entries) => readTrainingData(entries.flat(), { skipBad }))
  )

/** Preference losses need a chosen and a rejected answer in every row. */
const pairIssues = ({ rows }: TrainingData, type: TrainConfig['loss.type']): readonly Issue[] =>
  type === 'sft'
    ? []
    : rows
        .filter(({ rejected }) => rejected === undefined)
        .map(({ where, id }) => issue('NoPair', `${where ?? id}: ${type} needs a chosen and a rejected answer; this row has one`))

const emptyIssues = (data: TrainingData, c: TrainConfig): readonly Issue[] =>
  countBatches(data, { config: { ...c, 'batch.packing': false } }, 1) === 0
    ? [issue('NoRows', 'data: an epoch contains no rows; increase repeat_time')]
    : []

/** The rows of `files`, with sample sizes where packing or length grouping needs them. */
const loadData = (
  { processor }: InternVLCheckpoint,
  c: TrainConfig,
  files: readonly string[],
  { skipBad = false, onSizeProgress }: PreflightOptions
): TE.TaskEither<Issues, TrainingData> =>
  pipe(
    readData(files, skipBad),
    TE.chain((data) =>
      needsSizes(c) ? sampleSizes(processor, data, { config: c, skipBad, onProgress: onSizeProgress }) : TE.right(data)
    ),
    TE.chainEitherK((data) => whenValid(pairIssues(data, c['loss.type']), () => data))
  )

/** The output must not be the folder of the model: the model is read again as the reference and when a run is resumed. */
const outputIssues = async ({ dir }: InternVLCheckpoint, { output }: TrainConfig): Promise<readonly Issue[]> => {
  const [model, target] = await Promise.all([dir, output].map((path) => realpath(path).catch(() => resolve(path))))
  if (model !== target) return []
  return [issue('TargetRefused', `${output}: this is the folder of the model; choose another output`, { file: output })]
}

/** Creates the output folder and a file in the folder. Throws an `InternVLError` on a read-only disk, before any step is computed. */
const probeOutput = async (output: string): Promise<void> => {
  try {
    await mkdir(output, { recursive: true })
    await rm(await mkdtemp(join(output, '.write-test-')), { recursive: true })
  } catch (error) {
    throw new InternVLError(writeFailed(output, error as Error))
  }
}

/** Combinations of settings that are not supported. */
const settingIssues = (c: TrainConfig): readonly Issue[] => {
  const type = c['loss.type']
  const unused = (['loss.dpo', 'loss.bco', 'loss.nll'] as const).filter((key) => c[key] !== null && type === 'sft')
  const rules: readonly (readonly [isBroken: boolean, message: string])[] = [
    [
      c['batch.packing'] && type !== 'sft',
      `batch.packing: only sft supports packing, ${type} does not; set batch.packing to false`
    ],
    [
      c['batch.packing'] && c['batch.groupByLength'],
      'batch.groupByLength: packed rows have similar lengths already; set either this or batch.packing to false'
    ],
    [c['lora.alpha'] !== null && c['lora.rank'] === null, 'lora.alpha: needs lora.rank; set both, or neither'],
    ...unused.map((key) => [true, `${key}: sft has no such term; set loss.type to dpo or mpo`] as const),
    [
      type !== 'sft' && Object.values(preferenceWeights(c)).every((weight) => weight === 0),
      'loss: loss.dpo, loss.bco and loss.nll are all 0, so the loss is 0; set one of them above 0'
    ],
    [
      c['batch.maxTiles'] !== null && !c['batch.packing'],
      'batch.maxTiles: applies to packed rows; set batch.packing to true, or use batch.maxPatches for the tiles of an image'
    ]
  ]
  return rules.flatMap(([isBroken, message]) => (isBroken ? [issue('Setting', message)] : []))
}

/**
 * Runs all checks before the first step. `settings` are the settings that checkpoints store. Throws an `InternVLError` with every
 * error in settings, patterns, data, output folder and checkpoints, or with the error of an output that cannot be written.
 */
export const preflight = async (
  internvl: InternVLCheckpoint,
  c: TrainConfig,
  settings: TrainConfig,
  o: PreflightOptions
): Promise<PreflightResult> => {
  const data = await loadData(internvl, c, [c.data].flat(), o)()
  const validationSet = c.validation === null ? E.right(undefined) : await loadData(internvl, c, [c.validation], o)()
  const digest = pipe(
    data,
    E.match(() => undefined, dataDigest)
  )
  const { writes = true } = o
  const resume = writes ? await resumeIssues(o.checkpoints, o.resume ?? false, settings, digest) : []
  const checks = {
    settings: whenValid(settingIssues(c), () => undefined),
    parts: splitParameters(internvl.params, c),
    data: pipe(
      data,
      E.chain((rows) => whenValid(emptyIssues(rows, c), () => rows))
    ),
    validation: validationSet,
    output: whenValid(writes ? await outputIssues(internvl, c) : [], () => undefined),
    resume: whenValid(resume, () => undefined)
  }
  const valid = getOrThrow(sequenceS(validation)(checks))
  if (writes) await probeOutput(c.output)
  return { parts: valid.parts, data: valid.data, validation: valid.validation, dataDigest: digest! }
}
