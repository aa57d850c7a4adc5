import { type Fault, fault, InternVLError } from '../../lib/fault.js'
import { random } from '../../lib/random.js'
import { type Batch, type BatchOptions, batchOf } from './batch.js'
import type { TrainConfig } from './config.js'
import type { Batches } from './loop.js'
import { epochRows, type TrainingData } from './meta.js'
import { lengthGroupedOrder } from './order.js'
import { prefetch } from './prefetch.js'
import type { Prepared, Recipe } from './prepare.js'
import { counted, type VisualSteps } from './visual-steps.js'

/** What a run's samples are made with. */
export interface FeedOptions {
  /** Folder of the checkpoint whose processor makes the samples. */
  readonly model: string
  readonly config: Pick<
    TrainConfig,
    'seed' | 'batch.size' | 'batch.maxLength' | 'batch.maxPatches' | 'batch.grouped' | 'batch.jpeg'
  >
  /** Tokens of each row, for batches of like length. */
  readonly lengths?: readonly number[]
  readonly skipBad?: boolean
  /** Threads; 1 unless given. */
  readonly workers?: number
  /** Told of samples that could not be made and are left out. */
  readonly onSkipped?: (faults: readonly Fault[]) => void
}

/** The batches of an epoch, as indices of rows. */
const epochBatches = ({ repeats }: TrainingData, { config, lengths }: FeedOptions, epoch: number) => {
  const [size, seed] = [config['batch.size'], config.seed]
  const rows = epochRows(repeats, seed, epoch)
  const order =
    config['batch.grouped'] && lengths
      ? lengthGroupedOrder(rows.map((row) => lengths[row]!), size, seed, epoch).map((i) => rows[i]!) // biome-ignore format: one line
      : random(seed, epoch).shuffled(rows)
  return Array.from({ length: Math.ceil(order.length / size) }, (_, i) => order.slice(i * size, (i + 1) * size))
}

/** Batches in an epoch. */
export const batchesPerEpoch = ({ repeats }: TrainingData, { config }: FeedOptions): number =>
  Math.ceil(epochRows(repeats, config.seed, 0).length / config['batch.size'])

/** What to make of a row; its JPEG qualities differ from epoch to epoch. */
const recipeOf = ({ rows }: TrainingData, { config }: FeedOptions, index: number, epoch: number): Recipe => {
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
  const perEpoch = batchesPerEpoch(data, options)
  let first = position % perEpoch
  for (let epoch = Math.floor(position / perEpoch); ; epoch++, first = 0)
    for (const indices of epochBatches(data, options, epoch).slice(first))
      yield indices.map((index) => recipeOf(data, options, index, epoch))
}

/**
 * Samples of the batches of a run from a position on, epoch after epoch without an end: a function of data, settings and position
 * alone. They are made in threads while a step runs.
 */
export const feed = (data: TrainingData, options: FeedOptions): Batches<readonly Prepared[]> =>
  async function* (position) {
    const { model, skipBad = false, workers = 1, onSkipped } = options
    const prefetched = prefetch(recipesFrom(data, options, position), { model, skipBad, workers })
    let told = 0
    for await (const prepared of prefetched) {
      if (prefetched.skipped().length > told) onSkipped?.(prefetched.skipped().slice(told))
      told = prefetched.skipped().length
      // the position counts batches, so none may be left out altogether
      if (prepared.length === 0)
        throw new InternVLError([
          fault('EmptyBatch', 'no sample of a batch could be made; mend the data, or take larger batches')
        ])
      yield prepared
    }
  }

/** The same as batches of answers to learn. */
export const sftBatches = (
  data: TrainingData,
  options: FeedOptions & BatchOptions,
  stepsOf: VisualSteps = counted
): Batches<Batch> =>
  async function* (position) {
    let place = position
    for await (const prepared of feed(data, options)(position) as AsyncIterable<readonly Prepared[]>)
      yield batchOf(prepared.map(({ sample }) => sample), { ...options, positions: stepsOf(place++) }) // biome-ignore format: one line
  }
