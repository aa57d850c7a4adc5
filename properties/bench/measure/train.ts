import { type InternVLCheckpoint, load } from '../../../generation/checkpoint/load.js'
import { type Batch, disposeBatch } from '../../../generation/train/data/collate.js'
import { sftLoss } from '../../../generation/train/losses.js'
import { trainConfig } from '../../../generation/train/train-config.js'
import { type Trainable, trainable } from '../../../generation/train/trainable.js'
import { initialState, type TrainOptions, type TrainState, takeStep } from '../../../generation/train/training-loop.js'
import { selectEngine } from '../../../lib/engines/index.js'
import { getOrThrow, orThrow } from '../../../lib/error.js'
import { adamW } from '../../../lib/optim/adamw.js'
import { combine, disposeBeside, mapParams, type Partial } from '../../../lib/params.js'
import type { InternVLParams } from '../../../models/checkpoint/load-model.js'
import { saveAdapter } from '../../../models/lora/adapter.js'
import { lesson } from './inputs.js'
import { type Measured, now, peakMegabytes } from './measure.js'

/** Steps of LoRA beside the decoder's linear layers, of a checkpoint in float32: what one process measures. */
export interface TrainJob {
  readonly checkpoint: string
  /** Rows of a batch, each with a picture of one tile. */
  readonly size: number
  readonly steps: number
  /** Where LoRA's beginning is written in PEFT's format, for another program to begin alike. */
  readonly adapter: string
}

type Trained = Partial<InternVLParams>

/** As in bench_peft.py. */
const settings = { lora: { rank: 16, alpha: 32, dropout: 0 }, rate: 1e-4, weightDecay: 0.01, maxNorm: 1 }

export const partsOf = ({ params }: InternVLCheckpoint): Trainable =>
  getOrThrow(trainable(params, getOrThrow(trainConfig({ output: '', data: '', lora: settings.lora }))))

/** The step that `internvl train` takes. */
export const optionsOf = ({ module }: InternVLCheckpoint, { frozen }: Trainable): TrainOptions<Trained, Batch> => ({
  loss: sftLoss((trained) => module.apply(combine<InternVLParams>(trained, frozen))),
  optimizer: adamW({ learningRate: settings.rate, weightDecay: settings.weightDecay }),
  maxNorm: settings.maxNorm
})

/** Resident memory is read after the tenth step and the last one: what grows with the steps is seen there. */
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
    const begun = now()
    const taken = takeStep(state, [batch], options)
    seconds.push(now() - begun)
    losses.push(taken.loss)
    state = taken.state
    if (marksOf(steps).includes(step)) memory.push([step, process.memoryUsage.rss() / 2 ** 20])
  }
  return { state, losses, seconds, memory }
}

/** Loads the checkpoint and trains it in this process; the first step of several warms up and is not counted. */
export const measureTraining = async ({ checkpoint, size, steps, adapter }: TrainJob): Promise<Measured> => {
  const engine = await selectEngine()
  const begun = now()
  const internvl = await load(checkpoint)
  const load_s = [now() - begun]
  const parts = partsOf(internvl)
  await orThrow(saveAdapter(adapter, combine<InternVLParams>(parts.trained, parts.frozen), { base: checkpoint }))
  const batch = lesson(internvl.config, size)
  const own = initialState<Trained, ReturnType<ReturnType<typeof adamW>['init']>>(
    mapParams((leaf) => leaf.clone())(parts.trained),
    optionsOf(internvl, parts).optimizer
  )
  const { state, losses, seconds, memory } = takeSteps(own, batch, optionsOf(internvl, parts), steps)
  const counted = seconds.slice(steps > 1 ? 1 : 0)
  const { size: tokens } = batch.inputIds
  disposeBatch(batch)
  disposeBeside(internvl.params, state.params, state.optimizer.first, state.optimizer.second, parts)
  internvl.dispose()
  const samples = {
    load_s,
    step_s: counted,
    trained_tokens_per_s: counted.map((s) => tokens / s),
    peak_rss_mb: [peakMegabytes()]
  }
  return { engine: engine.name, dtype: 'float32', tokens, samples, losses, memory }
}
