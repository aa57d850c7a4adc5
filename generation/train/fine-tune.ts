import { join, resolve } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { type Issue, orThrow } from '../../lib/error.js'
import { adamW, exceptNormsAndBiases } from '../../lib/optim/adamw.js'
import { schedules } from '../../lib/optim/schedule.js'
import { combine, disposeBeside, mapParams, namedParameters, type Partial } from '../../lib/params.js'
import { tf } from '../../lib/tf.js'
import type { InternVLParams } from '../../models/checkpoint/load-model.js'
import { visionLayerDecay } from '../../models/internvl/layer-decay.js'
import { saveAdapter } from '../../models/lora/adapter.js'
import { savedModules } from '../../models/lora/adapter-modules.js'
import { isLoraPath, loraWeights, mergeLora, plainPath, plainShapes } from '../../models/lora/lora.js'
import type { InternVLCheckpoint } from '../checkpoint/load.js'
import { save } from '../checkpoint/save.js'
import { type Batch, disposeBatch, padIdOf } from './data/collate.js'
import { batchesIn, type FeedOptions, feed, sftBatches } from './data/dataloader.js'
import type { TrainingData } from './data/mixture.js'
import { visualSteps } from './data/v2pe-steps.js'
import { disposePairs, type PairBatch, pairBatches, pairLoss, sftLoss, sftWeight } from './losses.js'
import { type CheckOptions, type Prepared, prepared } from './preflight.js'
import { lastCheckpoint } from './train-checkpoint.js'
import { preferenceWeights, type TrainConfig } from './train-config.js'
import type { Trainable } from './trainable.js'
import { type RunOptions, run, type Scores } from './trainer.js'
import type { Batches, Loss } from './training-loop.js'

export interface FineTuneOptions extends Pick<RunOptions<never, never>, 'listeners' | 'signal'>, CheckOptions {
  readonly onSkipped?: (issues: readonly Issue[]) => void
  /** Threads that prepare samples; 1 unless given. */
  readonly workers?: number
  /** Told how many steps there will be. */
  readonly onPlan?: (steps: number) => void
  /** Told before the first step of what a person may not expect. */
  readonly onRemark?: (says: string) => void
}

type Trained = Partial<InternVLParams>

/** How batches are made, what their loss is, what each counts, and how it is freed. */
interface Objective<B> {
  readonly batches: (data: TrainingData) => Batches<B>
  readonly loss: Loss<Trained, B>
  readonly weightOf: (batch: B) => number
  readonly tokensOf: (batch: B) => number
  readonly disposeBatch: (batch: B) => void
}

const stepsOf = ({ generation }: InternVLCheckpoint, c: TrainConfig) =>
  visualSteps(c['visual.delta'], generation.imageTokenId, c.seed)

const sftObjective = (internvl: InternVLCheckpoint, { frozen }: Trainable, c: TrainConfig, options: FeedOptions) => {
  const padId = padIdOf(internvl.processor.tokenizer)
  return {
    batches: (data) => sftBatches(data, { ...options, padId, reduction: c['loss.reduction'] }, stepsOf(internvl, c)),
    loss: sftLoss((trained) => internvl.module.apply(combine<InternVLParams>(trained, frozen))),
    weightOf: sftWeight,
    tokensOf: ({ inputIds }) => inputIds.size,
    disposeBatch
  } satisfies Objective<Batch>
}

/** The reference is the model as it was loaded; beside LoRA it costs nothing. */
const pairObjective = (internvl: InternVLCheckpoint, { frozen }: Trainable, c: TrainConfig, options: FeedOptions) => {
  const padId = padIdOf(internvl.processor.tokenizer)
  return {
    batches: (data) => pairBatches(feed(data, options), internvl.model, { padId }, stepsOf(internvl, c)),
    loss: pairLoss((trained) => internvl.module.apply(combine<InternVLParams>(trained, frozen)), { weights: preferenceWeights(c), beta: c['loss.beta'] }), // biome-ignore format: one line
    weightOf: ({ chosen }) => chosen.samples,
    tokensOf: ({ chosen, rejected }) => chosen.inputIds.size + rejected.inputIds.size,
    disposeBatch: disposePairs
  } satisfies Objective<PairBatch>
}

/** The mean loss of all held-out batches. */
const heldOutLoss = <B>(objective: Objective<B>, data: TrainingData, options: FeedOptions) => {
  const batches = batchesIn(data, options, 1)
  return async (trained: Trained): Promise<Scores> => {
    let [sum, weight, taken] = [0, 0, 0]
    for await (const batch of objective.batches(data)(0)) {
      if (batch !== undefined) {
        const own = objective.weightOf(batch)
        sum += own * tf.tidy(() => objective.loss(trained, batch, {}).loss.dataSync()[0]!)
        weight += own
        objective.disposeBatch(batch)
      }
      if (++taken === batches) break
    }
    return { loss: sum / weight }
  }
}

const optimizerOf = (internvl: InternVLCheckpoint, c: TrainConfig, steps: number) => {
  const warmupSteps = Math.round(c['optimizer.warmup'] * steps)
  const rate = schedules[c['optimizer.schedule']]({ rate: c['optimizer.rate'], warmupSteps, totalSteps: steps })
  const optimizer = adamW({
    learningRate: rate,
    rateFactor: visionLayerDecay(internvl.config, c['optimizer.layerDecay']),
    beta1: c['optimizer.beta1'],
    beta2: c['optimizer.beta2'],
    weightDecay: c['optimizer.weightDecay'],
    decays: exceptNormsAndBiases
  })
  return { rate, optimizer }
}

/** What the model is found by again, from any folder: its name at the hub, or where it lies. */
const baseOf = ({ dir }: InternVLCheckpoint, { model }: TrainConfig): string =>
  model === null || model === dir ? resolve(dir) : model

/** What is kept with checkpoints. */
const settingsOf = (internvl: InternVLCheckpoint, c: TrainConfig): TrainConfig => ({ ...c, model: baseOf(internvl, c) })

const runOf = async <B>(
  internvl: InternVLCheckpoint,
  c: TrainConfig,
  found: Prepared,
  objective: Objective<B>,
  o: FineTuneOptions & FeedOptions
) => {
  const steps = c.steps ?? Math.ceil(batchesIn(found.data, o, c.epochs) / c['batch.accumulation'])
  o.onPlan?.(steps)
  const own = mapParams((leaf) => leaf.clone())(found.parts.trained) // the loaded model stays whole: it may be the reference
  const state = await run(own, objective.batches(found.data), {
    ...objective,
    ...optimizerOf(internvl, c, steps),
    ...{ steps, accumulation: c['batch.accumulation'], maxNorm: c['optimizer.clip'] },
    ...{ checkpoints: o.checkpoints, keep: c['save.keep'], saveEvery: c['save.every'] },
    ...{ settings: settingsOf(internvl, c), data: found.digest },
    training: {
      seed: c.seed,
      dropout: c['regularize.dropout'],
      dropPath: c['regularize.dropPath'],
      checkpointing: c.checkpointing
    },
    ...(found.heldOut ? { evaluate: heldOutLoss(objective, found.heldOut, o), evaluateEvery: c['evaluate.every'] } : {}),
    ...(o.listeners ? { listeners: o.listeners } : {}),
    ...(o.resume ? { resume: o.resume } : {}),
    ...(o.signal ? { signal: o.signal } : {})
  })
  return { state, isFinished: !o.signal?.aborted || state.step >= steps }
}

/** The whole tree of what was trained and what was not, without LoRA: new tensors where something was merged. */
export const wholeModel = (trained: Trained, frozen: Trained): InternVLParams =>
  mergeLora(combine<InternVLParams>(trained, frozen))

const trainedBeside = (trained: Trained): readonly string[] =>
  namedParameters(trained).flatMap(([path]) => (isLoraPath(path) ? [] : [plainPath(path)]))

/** What of the trained an adapter in PEFT's format can't hold. */
const unsavable = ({ params }: InternVLCheckpoint, trained: Trained): readonly Issue[] => {
  const saved = savedModules([...plainShapes(params).keys()], [...loraWeights(trained).keys()], trainedBeside(trained))
  return E.isLeft(saved) ? saved.left : []
}

/** The result of a run: the whole model and, where LoRA was trained, the adapter beside it, if PEFT can hold it. */
const saveResult = async (internvl: InternVLCheckpoint, c: TrainConfig, trained: Trained, frozen: Trained): Promise<void> => {
  const params = wholeModel(trained, frozen)
  await save(c.output, { config: internvl.config, params, dtype: c['save.dtype'], processorFilesFrom: internvl.dir })
  disposeBeside([internvl.params, trained, frozen], params)
  if (c['lora.rank'] === null || unsavable(internvl, trained).length > 0) return
  const options = { base: baseOf(internvl, c), beside: trainedBeside(trained) }
  await orThrow(saveAdapter(join(c.output, 'adapter'), combine<InternVLParams>(trained, frozen), options))
}

const remarks = (
  internvl: InternVLCheckpoint,
  c: TrainConfig,
  { parts }: Prepared,
  last: string | undefined,
  { resume }: FineTuneOptions
): readonly string[] => [
  ...(resume && last === undefined ? ['there is no checkpoint to resume from; the run begins anew'] : []),
  ...(c['lora.rank'] === null ? [] : unsavable(internvl, parts.trained)).map(
    ({ message }) => `no adapter will be written, the merged model alone: ${message}`
  )
]

/**
 * Trains a loaded model by a run's settings, with checkpoints, and saves the result as a folder as published, LoRA merged, with the
 * adapter in `adapter` where there is LoRA and PEFT can hold what else was trained. Whether it came to the end: a run that its signal
 * stops saves no result. What is wrong with settings, data and patterns is found before the first step and thrown together, as an
 * `InternVLError`.
 */
export const fineTune = async (internvl: InternVLCheckpoint, c: TrainConfig, options: FineTuneOptions): Promise<boolean> => {
  const found = await prepared(internvl, c, settingsOf(internvl, c), options)
  const skipped = [found.data, found.heldOut].flatMap((data) => data?.skipped ?? [])
  if (skipped.length > 0) options.onSkipped?.(skipped)
  for (const says of remarks(internvl, c, found, await lastCheckpoint(options.checkpoints), options)) options.onRemark?.(says)
  const feeding = { ...options, model: internvl.dir, config: c }
  const { state, isFinished } =
    c['loss.kind'] === 'sft'
      ? await runOf(internvl, c, found, sftObjective(internvl, found.parts, c, feeding), feeding)
      : await runOf(internvl, c, found, pairObjective(internvl, found.parts, c, feeding), feeding)
  if (isFinished) await saveResult(internvl, c, state.params, found.parts.frozen)
  disposeBeside(internvl.params, state.params, state.optimizer.first, state.optimizer.second, found.parts)
  return isFinished
}
