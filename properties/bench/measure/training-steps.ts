import { type InternVLCheckpoint, load } from '../../../generation/checkpoint/load.js'
import { type Batch, disposeBatch } from '../../../generation/train/data/collate.js'
import { sftLoss } from '../../../generation/train/losses.js'
import { trainConfig } from '../../../generation/train/train-config.js'
import { splitParameters, type Trainable } from '../../../generation/train/trainable.js'
import { initialState, type TrainOptions, type TrainState, takeStep } from '../../../generation/train/training-loop.js'
import { selectEngine } from '../../../lib/engines/index.js'
import { getOrThrow, orThrow } from '../../../lib/error.js'
import { adamW } from '../../../lib/optim/adamw.js'
import { combine, disposeExcept, mapParams, type PartialParams, partition } from '../../../lib/params.js'
import type { InternVLParams } from '../../../models/checkpoint/load-model.js'
import { saveAdapter } from '../../../models/lora/adapter.js'
import { trainingBatch } from './inputs.js'
import { type Measured, now, peakMegabytes } from './measure.js'

/** Training steps in float32, measured in one process: of LoRA on the decoder's linear layers, or of all weights. */
export interface TrainJob {
  readonly checkpoint: string
  /** Rows of a batch, each with an image of one tile. */
  readonly size: number
  readonly steps: number
  /** Folder for the initial adapter in PEFT's format, from which PEFT starts too; absent where all weights are trained. */
  readonly adapter?: string | undefined
}

type Trained = PartialParams<InternVLParams>

/** Hyperparameters, as in bench_peft.py. */
const settings = { lora: { rank: 16, alpha: 32, dropout: 0 }, learningRate: 1e-4, weightDecay: 0.01, maxGradNorm: 1 }

export const partsOf = ({ params }: InternVLCheckpoint): Trainable =>
  getOrThrow(splitParameters(params, getOrThrow(trainConfig({ output: '', data: '', lora: settings.lora }))))

const allWeightsOf = ({ params }: InternVLCheckpoint): Trainable => {
  const [trained, frozen] = partition(() => true)(params)
  return { trained, frozen }
}

/** Options of a training step, as `internvl train` sets them. */
export const optionsOf = ({ module }: InternVLCheckpoint, { frozen }: Trainable): TrainOptions<Trained, Batch> => ({
  loss: sftLoss((trained) => module.apply(combine<InternVLParams>(trained, frozen))),
  optimizer: adamW({ learningRate: settings.learningRate, weightDecay: settings.weightDecay }),
  maxGradNorm: settings.maxGradNorm
})

/** Steps after which resident memory is read: the tenth and the last, so that growth shows. */
const marksOf = (steps: number): readonly number[] => [...new Set([Math.min(10, steps), steps])]

interface Steps {
  readonly state: TrainState<Trained>
  readonly losses: readonly number[]
  readonly seconds: readonly number[]
  readonly memory: ReadonlyArray<readonly [step: number, megabytes: number]>
}

const takeSteps = (initial: TrainState<Trained>, batch: Batch, options: TrainOptions<Trained, Batch>, steps: number): Steps => {
  let state = initial
  const [losses, seconds, memory]: [number[], number[], [number, number][]] = [[], [], []]
  for (let step = 1; step <= steps; step++) {
    const start = now()
    const taken = takeStep(state, [batch], options)
    seconds.push(now() - start)
    losses.push(taken.loss)
    state = taken.state
    if (marksOf(steps).includes(step)) memory.push([step, process.memoryUsage.rss() / 2 ** 20])
  }
  return { state, losses, seconds, memory }
}

/** Loads the checkpoint and trains it in this process. The first of several steps is a warm-up and is not counted. */
export const measureTraining = async ({ checkpoint, size, steps, adapter }: TrainJob): Promise<Measured> => {
  const engine = await selectEngine()
  const start = now()
  const internvl = await load(checkpoint)
  const load_s = [now() - start]
  const parts = adapter === undefined ? allWeightsOf(internvl) : partsOf(internvl)
  if (adapter !== undefined)
    await orThrow(saveAdapter(adapter, combine<InternVLParams>(parts.trained, parts.frozen), { base: checkpoint }))
  const batch = trainingBatch(internvl.config, size)
  const initial = initialState<Trained, ReturnType<ReturnType<typeof adamW>['init']>>(
    mapParams((leaf) => leaf.clone())(parts.trained),
    optionsOf(internvl, parts).optimizer
  )
  const { state, losses, seconds, memory } = takeSteps(initial, batch, optionsOf(internvl, parts), steps)
  const counted = seconds.slice(steps > 1 ? 1 : 0)
  const { size: tokens } = batch.inputIds
  disposeBatch(batch)
  disposeExcept(internvl.params, state.params, state.optimizer.first, state.optimizer.second, parts)
  internvl.dispose()
  const samples = {
    load_s,
    step_s: counted,
    trained_tokens_per_s: counted.map((s) => tokens / s),
    peak_rss_mb: [peakMegabytes()]
  }
  return { engine: engine.name, dtype: 'float32', tokens, samples, losses, memory }
}
