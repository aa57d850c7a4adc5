import { InternVLError, type Issue, issue } from '../../../lib/error.js'
import { random } from '../../../lib/random.js'
import { partOf, type WorkerShare } from '../parallel/worker-share.js'
import type { TrainConfig } from '../train-config.js'
import type { Batches } from '../training-loop.js'
import { type Batch, type BatchOptions, collate } from './collate.js'
import { epochRows, type TrainingData } from './mixture.js'
import { collatePacked, packRows } from './packing.js'
import { prefetch } from './prefetch.js'
import type { SampleSize } from './sample.js'
import type { PreparedSample, SampleSpec } from './sample-maker.js'
import { lengthGroupedIndices } from './sampler.js'
import { defaultPositions, type PositionScheme } from './v2pe-positions.js'

export interface DataLoaderOptions {
  /** Folder of the checkpoint whose processor makes the samples. */
  readonly model: string
  readonly config: Pick<TrainConfig, 'seed' | Extract<keyof TrainConfig, `batch.${string}`>>
  /** Skips samples that cannot be made. */
  readonly skipBad?: boolean
  /** Worker threads. Default: 1. */
  readonly workers?: number
  /** Called with the errors of skipped samples. */
  readonly onSkipped?: (issues: readonly Issue[]) => void
  /** Makes only the samples of one worker among several. Default: all. */
  readonly share?: WorkerShare
}

/** Options that determine how rows are grouped into batches. */
type Grouping = Pick<DataLoaderOptions, 'config'>

/** Whether sample sizes must be known before the first sample is made. */
export const needsSizes = (config: DataLoaderOptions['config']): boolean =>
  config['batch.packing'] || config['batch.groupByLength']

/** The sizes of the samples. Throws a `RangeError` where `sampleSizes` did not compute them. */
const sizesOf = ({ sizes }: TrainingData): readonly SampleSize[] => {
  if (!sizes) throw new RangeError('dataLoader: packing and length grouping need sample sizes; call sampleSizes first')
  return sizes
}

/** Indices of the rows in the order of an epoch. */
const epochOrder = (data: TrainingData, { config }: Grouping, epoch: number): readonly number[] => {
  const rows = epochRows(data.repeats, config.seed, epoch)
  if (!config['batch.groupByLength']) return random(config.seed, epoch).shuffled(rows)
  const lengths = rows.map((row) => sizesOf(data)[row]!.tokens)
  return lengthGroupedIndices(lengths, config['batch.size'], config.seed, epoch).map((i) => rows[i]!)
}

/** Indices of the rows of an epoch in groups: one row each, or the rows of a packed row. */
const epochGroups = (data: TrainingData, options: Grouping, epoch: number): readonly (readonly number[])[] => {
  const order = epochOrder(data, options, epoch)
  const { 'batch.packing': packing, 'batch.maxLength': maxTokens, 'batch.maxTiles': maxTiles } = options.config
  if (!packing) return order.map((index) => [index])
  return packRows(order, (index) => sizesOf(data)[index]!, { maxTokens, ...(maxTiles === null ? {} : { maxTiles }) })
}

/** Number of batches of an epoch. With packing the number differs from epoch to epoch. */
const batchesInEpoch = (data: TrainingData, options: Grouping, epoch: number): number => {
  const { 'batch.packing': packing, 'batch.size': size, seed } = options.config
  const rows = packing ? epochGroups(data, options, epoch) : epochRows(data.repeats, seed, epoch)
  return Math.ceil(rows.length / size)
}

/** Number of batches of `epochs` epochs; the last epoch may be a fraction. */
export const countBatches = (data: TrainingData, options: Grouping, epochs: number): number => {
  const counts = Array.from({ length: Math.ceil(epochs) }, (_, epoch) => batchesInEpoch(data, options, epoch))
  return counts.reduce((sum, count, epoch) => sum + Math.ceil(count * Math.min(1, epochs - epoch)), 0)
}

/** The specification of the sample of a row. The JPEG quality of the augmentation depends on the epoch. */
export const sampleSpec = ({ rows }: TrainingData, { config }: Grouping, index: number, epoch = 0): SampleSpec => {
  const row = rows[index]!
  const maxPatches = row.maxPatches ?? config['batch.maxPatches']
  const imageBackend = config['batch.imageBackend']
  const jpeg = row.augment || config['batch.jpegAugmentation']
  return {
    row,
    options: {
      maxLength: config['batch.maxLength'],
      ...(maxPatches === null || maxPatches === undefined ? {} : { maxPatches }),
      ...(imageBackend === null ? {} : { imageBackend }),
      ...(jpeg ? { jpegSeed: random(config.seed, epoch, index).integer(0, 2 ** 31) } : {})
    }
  }
}

function* specsFrom(
  data: TrainingData,
  options: DataLoaderOptions,
  position: number
): Generator<readonly SampleSpec[], void, void> {
  const { 'batch.packing': packing, 'batch.size': size } = options.config
  let [epoch, first] = [0, position]
  for (let count = batchesInEpoch(data, options, 0); first >= count; count = batchesInEpoch(data, options, ++epoch))
    first -= count
  for (; ; epoch++, first = 0) {
    const groups = epochGroups(data, options, epoch)
    for (let at = first * size; at < groups.length; at += size)
      yield groups
        .slice(at, at + size)
        .flatMap((indices, group) =>
          indices.map((index) => ({ ...sampleSpec(data, options, index, epoch), ...(packing ? { group } : {}) }))
        )
  }
}

/** The specifications of one worker's part of its batches. */
function* sharedSpecs(all: Iterable<readonly SampleSpec[]>, share: WorkerShare): Generator<readonly SampleSpec[], void, void> {
  let index = 0
  for (const specs of all) {
    if (index++ % share.groups !== share.group) continue
    const groups = [...new Set(specs.map(({ group }, i) => group ?? i))] // a packed row stays whole
    const indices = new Set(partOf(groups, share))
    yield specs.filter(({ group }, i) => indices.has(group ?? i))
  }
}

/**
 * The samples of the batches of a run from a position on, epoch after epoch without end: a function of data, settings and position.
 * Worker threads make samples while a step runs. With `skipBad` a batch without any valid sample is `undefined`; an epoch without any
 * throws an `InternVLError`.
 */
export const dataLoader = (data: TrainingData, options: DataLoaderOptions): Batches<readonly PreparedSample[]> =>
  async function* (position) {
    const { model, skipBad = false, workers = 1, onSkipped, share } = options
    const all = specsFrom(data, options, position)
    const prefetched = prefetch(share ? sharedSpecs(all, share) : all, { model, skipBad, workers })
    const epochBatches = batchesInEpoch(data, options, 0)
    let [reported, empty] = [0, 0]
    for await (const prepared of prefetched) {
      if (prefetched.skipped().length > reported) onSkipped?.(prefetched.skipped().slice(reported))
      reported = prefetched.skipped().length
      empty = prepared.length === 0 ? empty + 1 : 0
      if (empty >= epochBatches && !share)
        // a worker may have none while others have
        throw new InternVLError([issue('NoRows', 'no sample of the last epoch could be made; fix the training data')])
      yield prepared.length === 0 ? undefined : prepared
    }
  }

const byGroup = (prepared: readonly PreparedSample[]): readonly (readonly PreparedSample['sample'][])[] => {
  const groups = new Map<number | undefined, PreparedSample['sample'][]>()
  for (const { group, sample } of prepared) groups.set(group, [...(groups.get(group) ?? []), sample])
  return [...groups.values()]
}

/** Collated batches for supervised fine-tuning. */
export const sftBatches = (
  data: TrainingData,
  options: DataLoaderOptions & BatchOptions,
  positionsOf: PositionScheme = defaultPositions
): Batches<Batch> =>
  async function* (start) {
    const { group = 0, groups = 1 } = options.share ?? {}
    let position = start + group
    for await (const prepared of dataLoader(data, options)(start)) {
      const batchOptions = { ...options, positions: positionsOf(position) }
      position += groups
      if (prepared === undefined) yield undefined
      else if (options.config['batch.packing']) yield collatePacked(byGroup(prepared), batchOptions)
      else yield collate(prepared.map(({ sample }) => sample), batchOptions) // biome-ignore format: one line
    }
  }
