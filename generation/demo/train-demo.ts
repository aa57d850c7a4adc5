import { orThrow } from '../../lib/error.js'
import { causalLoss } from '../../lib/nn/losses/cross-entropy.js'
import { adamW } from '../../lib/optim/adamw.js'
import type { Schedule } from '../../lib/optim/schedule.js'
import { disposeParams, initParams, mapParams } from '../../lib/params.js'
import { tf } from '../../lib/tf.js'
import type { InternVLModule, InternVLParams } from '../../models/checkpoint/load-model.js'
import type { Processor } from '../../processors/processor.js'
import type { Message } from '../../processors/text/messages.js'
import { answer } from '../answer.js'
import type { InternVLCheckpoint } from '../checkpoint/load.js'
import type { DatasetRow } from '../evaluate/eval-dataset.js'
import { type Batch, batchOf, disposeBatch, padIdOf } from '../train/data/collate.js'
import { prefetch } from '../train/data/prefetch.js'
import type { SceneRecipe } from '../train/data/prepare.js'
import { type Sample, sampleOf } from '../train/data/sample.js'
import { type RunOptions, run, type Scores } from '../train/trainer.js'
import type { Batches, Loss } from '../train/training-loop.js'
import { sample, type Task, taskWeights } from './scenes.js'

// The demo model's recipe, after `train_demo.py`, which made the model that ships here in two runs of 5,088 and 4,850 steps, the
// second of which saw more of what was found hard. Here it is one run: one warm-up, one cosine down to 2 %.

const batchSize = 24
const batchesPerStep = 2
const warmup = 200
const peak = 1e-3
const hardWeights = { ...mapValues(taskWeights, () => 1), background: 3, count: 6, describe: 3 }

function mapValues<K extends string, A, B>(record: Readonly<Record<K, A>>, f: (a: A) => B): Record<K, B> {
  return Object.fromEntries(Object.entries<A>(record).map(([key, value]) => [key, f(value)])) as Record<K, B>
}

/** The most steps that the recipe has. */
export const demoSteps = 9938

/** How often each task is drawn at a step of so many: after two fifths, more of what is hard. */
export const demoWeights = (step: number, steps: number): Readonly<Record<Task, number>> =>
  step < 0.4 * steps ? taskWeights : hardWeights

/** The rate of each step of so many. */
export const demoRate =
  (steps: number): Schedule =>
  (step) =>
    peak * Math.min(1, (step + 1) / warmup) * (0.02 + 0.49 * (1 + Math.cos((Math.PI * step) / steps)))

/**
 * Samples in two batches, the short and the long, cut where the fewest places are filled up: together they are the loss of the
 * one batch, at about half the work of the decoder.
 */
export const byLength = (samples: readonly Sample[]): readonly [readonly Sample[], readonly Sample[]] => {
  const sorted = [...samples].sort((a, b) => a.ids.length - b.ids.length)
  const longest = sorted.at(-1)!.ids.length
  const places = (cut: number) => cut * sorted[cut - 1]!.ids.length + (sorted.length - cut) * longest
  const cuts = sorted.slice(1).map((_, i) => i + 1)
  const best = cuts.reduce((a, b) => (places(b) < places(a) ? b : a))
  return [sorted.slice(0, best), sorted.slice(best)]
}

const samplesOf = (processor: Processor, rows: readonly DatasetRow[]): Promise<readonly Sample[]> =>
  Promise.all(rows.map((row) => orThrow(sampleOf(processor, row, { maxPatches: 1 }))))

/** What to draw for the steps from one on. */
function* scenesFrom(first: number, seed: number, steps: number): Generator<readonly SceneRecipe[], void, void> {
  for (let step = first; ; step++) {
    const weights = demoWeights(step, steps)
    yield Array.from({ length: batchSize }, (_, i) => ({ seed, index: step * batchSize + i, weights }))
  }
}

/** Two batches a step, drawn in a thread while the steps before run. */
const drawnBatches = ({ dir, processor }: InternVLCheckpoint, seed: number, steps: number): Batches<Batch> =>
  async function* (position) {
    const padId = padIdOf(processor.tokenizer)
    const recipes = (function* () {
      for (const scenes of scenesFrom(position / batchesPerStep, seed, steps))
        yield scenes.map((row) => ({ row, options: { maxPatches: 1 } }))
    })()
    for await (const prepared of prefetch(recipes, { model: dir }))
      for (const samples of byLength(prepared.map(({ sample }) => sample))) yield batchOf(samples, { padId })
  }

/** Random weights as Transformers makes them; class token and position embeddings too, which it leaves at zero. */
export const demoParams = (module: InternVLModule, seed: number): InternVLParams =>
  mapParams((leaf, path) => {
    if (!path.endsWith('.cls_token')) return leaf
    leaf.dispose()
    return tf.randomNormal(leaf.shape, 0, 0.02, 'float32', seed)
  })(initParams(module, seed))

const lossOf =
  (module: InternVLModule): Loss<InternVLParams, Batch> =>
  (params, batch) => ({
    loss: causalLoss(module.apply(params)(batch, { attentionMask: batch.attentionMask }).logits, batch.labels)
  })

const asked = ({ messages }: DatasetRow): readonly Message[] => messages.slice(0, -1)

/** The loss and the share of right answers on scenes that training never sees. */
const evaluation =
  (internvl: InternVLCheckpoint, seed: number, rows: number) =>
  async (params: InternVLParams): Promise<Scores> => {
    const checkpoint = { ...internvl, params, model: internvl.module.apply(params) }
    let [loss, right] = [0, 0]
    for (let first = 0; first < rows; first += batchSize) {
      const drawn = Array.from({ length: batchSize }, (_, i) => sample(seed, first + i))
      const batch = batchOf(await samplesOf(internvl.processor, drawn), { padId: padIdOf(internvl.processor.tokenizer) })
      const value = tf.tidy(() => lossOf(internvl.module)(params, batch, {}).loss.dataSync()[0]!)
      disposeBatch(batch)
      const { texts } = await answer(checkpoint, drawn.map(asked), { maxPatches: 1, maxNewTokens: 64, doSample: false })
      loss += (value * batchSize) / rows
      right += texts.filter((text, i) => text.trim() === drawn[i]!.messages.at(-1)!.content).length
    }
    return { loss, accuracy: right / rows }
  }

export interface DemoOptions
  extends Pick<RunOptions<InternVLParams, Batch>, 'checkpoints' | 'listeners' | 'resume' | 'signal' | 'saveEvery'> {
  readonly steps?: number
  readonly seed?: number
  readonly evaluateEvery?: number
}

/**
 * Trains a model of the demo model's shape from random weights on scenes drawn on the way; its parameters, the caller's. `internvl`
 * is the demo model, of which the configuration and the processor are used.
 */
export const trainDemo = async (internvl: InternVLCheckpoint, options: DemoOptions): Promise<InternVLParams> => {
  const { steps = demoSteps, seed = 1, evaluateEvery = 1000, saveEvery = 250 } = options
  const rate = demoRate(steps)
  const { module } = internvl
  const state = await run(demoParams(module, seed), drawnBatches(internvl, seed, steps), {
    ...options,
    ...{ steps, rate, saveEvery, evaluateEvery, maxNorm: 1, loss: lossOf(module), accumulation: batchesPerStep },
    weightOf: ({ learned }) => learned,
    disposeBatch,
    settings: { steps, seed },
    optimizer: adamW({ learningRate: rate, beta2: 0.98, weightDecay: 0.02 }),
    evaluate: evaluation(internvl, 777, 4 * batchSize),
    tokensOf: ({ inputIds }) => inputIds.size
  })
  disposeParams([state.optimizer.first, state.optimizer.second])
  return state.params
}
