import { InternVLError, type Issue, issue } from '../../../lib/error.js'
import { random } from '../../../lib/random.js'
import type { TrainConfig } from '../train-config.js'
import type { Batches } from '../training-loop.js'
import { type Batch, type BatchOptions, batchOf } from './collate.js'
import { epochRows, type TrainingData } from './mixture.js'
import { packedBatchOf, packRows } from './packing.js'
import { prefetch } from './prefetch.js'
import type { Prepared, Recipe } from './prepare.js'
import type { SampleSize } from './sample.js'
import { lengthGroupedOrder } from './sampler.js'
import { counted, type VisualSteps } from './v2pe-steps.js'

/** What a run's samples are made with. */
export interface FeedOptions {
  /** Folder of the checkpoint whose processor makes the samples. */
  readonly model: string
  readonly config: Pick<TrainConfig, 'seed' | Extract<keyof TrainConfig, `batch.${string}`>>
  readonly skipBad?: boolean
  /** Threads; 1 unless given. */
  readonly workers?: number
  /** Told of samples that could not be made and are left out. */
  readonly onSkipped?: (issues: readonly Issue[]) => void
}

/** How batches are made of rows. */
type Grouping = Pick<FeedOptions, 'config'>

/** Whether samples have to be measured before the first is made. */
export const needsSizes = (config: FeedOptions['config']): boolean => config['batch.packing'] || config['batch.grouped']

/** The sizes of the samples; throws a `RangeError` where they were not measured. */
const sizesOf = ({ sizes }: TrainingData): readonly SampleSize[] => {
  if (!sizes) throw new RangeError('feed: packing and length groups need data with sizes; measureRows gives them')
  return sizes
}

/** The rows of data in an epoch's order. */
const orderOf = (data: TrainingData, { config }: Grouping, epoch: number): readonly number[] => {
  const rows = epochRows(data.repeats, config.seed, epoch)
  if (!config['batch.grouped']) return random(config.seed, epoch).shuffled(rows)
  const lengths = rows.map((row) => sizesOf(data)[row]!.tokens)
  return lengthGroupedOrder(lengths, config['batch.size'], config.seed, epoch).map((i) => rows[i]!)
}

/** The rows of an epoch's batches, by what they hold: one sample, or several that are packed. */
const epochGroups = (data: TrainingData, options: Grouping, epoch: number): readonly (readonly number[])[] => {
  const order = orderOf(data, options, epoch)
  const { 'batch.packing': packing, 'batch.maxLength': maxTokens, 'batch.maxTiles': maxTiles } = options.config
  if (!packing) return order.map((index) => [index])
  return packRows(order, (index) => sizesOf(data)[index]!, { maxTokens, ...(maxTiles === null ? {} : { maxTiles }) })
}

/** Batches in an epoch: when rows are packed, not as many in each. */
const batchesInEpoch = (data: TrainingData, options: Grouping, epoch: number): number => {
  const { 'batch.packing': packing, 'batch.size': size, seed } = options.config
  const rows = packing ? epochGroups(data, options, epoch) : epochRows(data.repeats, seed, epoch)
  return Math.ceil(rows.length / size)
}

/** Batches in so many epochs, the last perhaps a part. */
export const batchesIn = (data: TrainingData, options: Grouping, epochs: number): number => {
  const counts = Array.from({ length: Math.ceil(epochs) }, (_, epoch) => batchesInEpoch(data, options, epoch))
  return counts.reduce((sum, count, epoch) => sum + Math.ceil(count * Math.min(1, epochs - epoch)), 0)
}

/** What to make of a row; its JPEG qualities differ from epoch to epoch. */
export const recipeOf = ({ rows }: TrainingData, { config }: Grouping, index: number, epoch = 0): Recipe => {
  const row = rows[index]!
  const maxPatches = row.maxPatches ?? config['batch.maxPatches']
  const spoilt = row.augment || config['batch.jpeg']
  return {
    row,
    options: {
      maxLength: config['batch.maxLength'],
      ...(maxPatches === null || maxPatches === undefined ? {} : { maxPatches }),
      ...(spoilt ? { jpegSeed: random(config.seed, epoch, index).integer(0, 2 ** 31) } : {})
    }
  }
}

function* recipesFrom(data: TrainingData, options: FeedOptions, position: number): Generator<readonly Recipe[], void, void> {
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
          indices.map((index) => ({ ...recipeOf(data, options, index, epoch), ...(packing ? { group } : {}) }))
        )
  }
}

/**
 * Samples of the batches of a run from a position on, epoch after epoch without an end: a function of data, settings and position
 * alone. They are made in threads while a step runs. With `skipBad` a batch of bad samples alone is `undefined`; an epoch of nothing
 * else throws an `InternVLError`.
 */
export const feed = (data: TrainingData, options: FeedOptions): Batches<readonly Prepared[]> =>
  async function* (position) {
    const { model, skipBad = false, workers = 1, onSkipped } = options
    const prefetched = prefetch(recipesFrom(data, options, position), { model, skipBad, workers })
    const most = batchesInEpoch(data, options, 0)
    let [told, empty] = [0, 0]
    for await (const prepared of prefetched) {
      if (prefetched.skipped().length > told) onSkipped?.(prefetched.skipped().slice(told))
      told = prefetched.skipped().length
      empty = prepared.length === 0 ? empty + 1 : 0
      if (empty >= most) throw new InternVLError([issue('NoRows', 'no sample of the last epoch could be made; mend the data')])
      yield prepared.length === 0 ? undefined : prepared
    }
  }

const grouped = (prepared: readonly Prepared[]): readonly (readonly Prepared['sample'][])[] => {
  const groups = new Map<number | undefined, Prepared['sample'][]>()
  for (const { group, sample } of prepared) groups.set(group, [...(groups.get(group) ?? []), sample])
  return [...groups.values()]
}

/** The same as batches of answers to learn. */
export const sftBatches = (
  data: TrainingData,
  options: FeedOptions & BatchOptions,
  stepsOf: VisualSteps = counted
): Batches<Batch> =>
  async function* (position) {
    let place = position
    for await (const prepared of feed(data, options)(position)) {
      const own = { ...options, positions: stepsOf(place++) }
      if (prepared === undefined) yield undefined
      else if (options.config['batch.packing']) yield packedBatchOf(grouped(prepared), own)
      else yield batchOf(prepared.map(({ sample }) => sample), own) // biome-ignore format: one line
    }
  }
