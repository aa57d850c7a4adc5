import { getOrThrow, orThrow, whenValid } from '../../lib/error.js'
import { adamW } from '../../lib/optim/adamw.js'
import type { Schedule } from '../../lib/optim/schedule.js'
import { disposeParams, initParams, mapParams } from '../../lib/params.js'
import { tf } from '../../lib/tf.js'
import type { InternVLModule, InternVLParams } from '../../models/checkpoint/load-model.js'
import type { Processor } from '../../processors/processor.js'
import type { InternVLCheckpoint } from '../checkpoint/load.js'
import type { DatasetRow } from '../evaluate/eval-dataset.js'
import { evaluate } from '../evaluate/evaluate.js'
import { type Batch, collate, disposeBatch, padIdOf } from '../train/data/collate.js'
import { prefetch } from '../train/data/prefetch.js'
import { encodeSample, type Sample } from '../train/data/sample.js'
import { sftLoss, sftWeight } from '../train/losses.js'
import { changedValues } from '../train/resume.js'
import { type Metrics, runTrainer, type TrainerOptions } from '../train/trainer.js'
import type { Batches } from '../train/training-loop.js'
import { type SceneSpec, sceneMakerModule } from './scene-samples.js'
import { sceneSample, type Task, taskWeights } from './scenes.js'

// Training of the demo model: one run with one warm-up and one cosine decay to 2 %. First the tasks that teach the vision tower shapes, colours
// and quarters of an image; then mostly questions in words about every shape of an image, which teach to look for a name; then all tasks, more of the
// difficult ones. With all tasks from the start the loss stayed at that of answers without the image for more than 1,300 steps.

const batchSize = 24
const batchesPerStep = 2
const warmupSteps = 200
const peakLearningRate = 1e-3
const firstWeights = { ...taskWeights, position: 0, find: 0, positions: 0, quiz: 0 }
const positionWeights = { ...mapValues(taskWeights, () => 1), count: 2, hello: 0.3, positions: 25, quiz: 3 }
const laterWeights = {
  ...mapValues(taskWeights, () => 1),
  background: 1.5,
  count: 5,
  describe: 2.5,
  find: 2,
  quiz: 14,
  positions: 5,
  hello: 0.3
}

function mapValues<K extends string, A, B>(record: Readonly<Record<K, A>>, f: (a: A) => B): Record<K, B> {
  return Object.fromEntries(Object.entries<A>(record).map(([key, value]) => [key, f(value)])) as Record<K, B>
}

/** Default number of steps. */
export const demoSteps = 14_000

/** Whether a step is among the first, which have no shapes to find and one tile an image. */
const isFirst = (step: number, steps: number): boolean => step < 0.2 * steps

/** Sampling weights of the tasks at a step. */
export const demoWeights = (step: number, steps: number): Readonly<Record<Task, number>> =>
  isFirst(step, steps) ? firstWeights : step < 0.5 * steps ? positionWeights : laterWeights

/** Learning rate schedule: linear warm-up, then cosine decay to 2 %. */
export const demoLearningRate =
  (steps: number): Schedule =>
  (step) =>
    peakLearningRate * Math.min(1, (step + 1) / warmupSteps) * (0.02 + 0.49 * (1 + Math.cos((Math.PI * step) / steps)))

/**
 * Splits samples by length into two batches with the least padding. Together the two batches have the loss of one batch, at about half
 * the cost in the decoder.
 */
export const splitByLength = (samples: readonly Sample[]): readonly [readonly Sample[], readonly Sample[]] => {
  const sorted = [...samples].sort((a, b) => a.ids.length - b.ids.length)
  const longest = sorted.at(-1)!.ids.length
  const cells = (split: number) => split * sorted[split - 1]!.ids.length + (sorted.length - split) * longest
  const splits = sorted.slice(1).map((_, i) => i + 1)
  const best = splits.reduce((a, b) => (cells(b) < cells(a) ? b : a))
  return [sorted.slice(0, best), sorted.slice(best)]
}

const encodeAll = (processor: Processor, rows: readonly DatasetRow[]): Promise<readonly Sample[]> =>
  Promise.all(rows.map((row) => orThrow(encodeSample(processor, row, { maxPatches: 2 }))))

interface SceneStream {
  readonly seed: number
  readonly steps: number
  /** Whether training continues from a trained model, without the first tasks. */
  readonly continued: boolean
}

/** Specifications of the scenes of each step, from step `first` on. */
function* scenesFrom(first: number, { seed, steps, continued }: SceneStream): Generator<readonly SceneSpec[], void, void> {
  for (let step = first; ; step++) {
    const at = continued ? 0.2 * steps + 0.8 * step : step
    const weights = demoWeights(at, steps)
    const maxPatches = (i: number) => (isFirst(at, steps) ? 1 : 1 + (i % 2))
    yield Array.from({ length: batchSize }, (_, i) => ({ seed, index: step * batchSize + i, weights, maxPatches: maxPatches(i) }))
  }
}

/** Two batches per step; a worker thread renders their scenes while earlier steps run. */
const sceneBatches = ({ dir, processor }: InternVLCheckpoint, stream: SceneStream): Batches<Batch> =>
  async function* (position) {
    const padId = padIdOf(processor.tokenizer)
    const specs = scenesFrom(position / batchesPerStep, stream)
    for await (const prepared of prefetch(specs, { model: dir, maker: sceneMakerModule }))
      for (const samples of splitByLength(prepared.map(({ sample }) => sample))) yield collate(samples, { padId })
  }

/** Random weights as Transformers initializes them, and a random class token, which Transformers initializes to zero. */
const demoParams = (module: InternVLModule, seed: number): InternVLParams =>
  mapParams((leaf, path) => {
    if (!path.endsWith('.cls_token')) return leaf
    leaf.dispose()
    return tf.randomNormal(leaf.shape, 0, 0.02, 'float32', seed)
  })(initParams(module, seed))

/** Loss and accuracy on scenes that are not in the training data. */
const evaluation =
  (internvl: InternVLCheckpoint, seed: number, rows: number) =>
  async (params: InternVLParams): Promise<Metrics> => {
    const checkpoint = { ...internvl, params, model: internvl.module.apply(params) }
    let loss = 0
    const scenes = Array.from({ length: rows }, (_, i) => sceneSample(seed, i))
    for (let first = 0; first < rows; first += batchSize) {
      const encoded = await encodeAll(internvl.processor, scenes.slice(first, first + batchSize))
      const batch = collate(encoded, { padId: padIdOf(internvl.processor.tokenizer) })
      const value = tf.tidy(() => sftLoss(internvl.module.apply)(params, batch, {}).loss.dataSync()[0]!)
      disposeBatch(batch)
      loss += (value * encoded.length) / rows
    }
    const { summary } = await evaluate(checkpoint, scenes, { batchSize, maxPatches: 2, maxNewTokens: 64 })
    return { loss, ...Object.fromEntries(summary.scores.map(({ task, mean }) => [task, mean])) }
  }

export interface DemoOptions
  extends Pick<
    TrainerOptions<InternVLParams, Batch>,
    'checkpoints' | 'callbacks' | 'resume' | 'signal' | 'saveSteps' | 'evaluateSteps'
  > {
  readonly steps?: number
  readonly seed?: number
  /** Weights to start from, which the training takes over; random ones by default. */
  readonly initial?: InternVLParams
}

/**
 * Trains a model with the architecture of the demo model from random weights on rendered scenes. `internvl` is the demo model, of which
 * the configuration and the processor are used. The caller owns the returned parameters.
 */
export const trainDemo = async (internvl: InternVLCheckpoint, options: DemoOptions): Promise<InternVLParams> => {
  const { steps = demoSteps, seed = 1, evaluateSteps = 1000, saveSteps = 250, initial } = options
  const learningRate = demoLearningRate(steps)
  const { module } = internvl
  const fromTrainedModel = initial !== undefined
  const { checkpoints, resume } = options
  const issues =
    resume && checkpoints ? await changedValues(checkpoints, { seed, fromTrainedModel }, { fromTrainedModel: false }) : []
  getOrThrow(whenValid(issues, () => undefined))
  const batches = sceneBatches(internvl, { seed, steps, continued: fromTrainedModel })
  const state = await runTrainer(initial ?? demoParams(module, seed), batches, {
    ...options,
    ...{ steps, learningRate, saveSteps, evaluateSteps, maxGradNorm: 1 },
    ...{ loss: sftLoss(module.apply), weightOf: sftWeight, gradientAccumulation: batchesPerStep },
    disposeBatch,
    settings: { steps, seed, fromTrainedModel },
    optimizer: adamW({ learningRate, beta2: 0.98, weightDecay: 0.02 }),
    evaluate: evaluation(internvl, 777, 4 * batchSize),
    tokensOf: ({ inputIds }) => inputIds.size
  })
  disposeParams([state.optimizer.first, state.optimizer.second])
  return state.params
}
