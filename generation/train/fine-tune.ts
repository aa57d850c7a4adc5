import { join, resolve } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { WorkerGroup } from '../../lib/distributed/worker-group.js'
import { type Issue, orThrow } from '../../lib/error.js'
import { usesTensorflowOps } from '../../lib/ops/kernel.js'
import { adamW, exceptNormsAndBiases } from '../../lib/optim/adamw.js'
import { schedules } from '../../lib/optim/schedule.js'
import { combine, disposeExcept, mapParams, namedParameters, type PartialParams } from '../../lib/params.js'
import { tf } from '../../lib/tf.js'
import type { InternVLParams } from '../../models/checkpoint/load-model.js'
import { visionLayerDecay } from '../../models/internvl/layer-decay.js'
import { saveAdapter } from '../../models/lora/adapter.js'
import { isLoraPath, loraWeights, mergeLora, pathWithoutLora, shapesWithoutLora } from '../../models/lora/lora.js'
import { besideLora } from '../../models/lora/save-adapter.js'
import type { InternVLCheckpoint } from '../checkpoint/load.js'
import { save } from '../checkpoint/save.js'
import { type Batch, disposeBatch, padIdOf } from './data/collate.js'
import { countBatches, type DataLoaderOptions, dataLoader, sftBatches } from './data/dataloader.js'
import type { TrainingData } from './data/mixture.js'
import { v2pePositions } from './data/v2pe-positions.js'
import { disposePairs, type PairBatch, pairBatches, pairLoss, sftLoss, sftWeight } from './losses.js'
import type { Parallel } from './parallel/data-parallel.js'
import {
  announce,
  checkTogether,
  gatherMetrics,
  reportFailure,
  type SharedSizes,
  shareOf
} from './parallel/fine-tune-together.js'
import { evaluationShare } from './parallel/worker-share.js'
import { type PreflightOptions, type PreflightResult, preflight } from './preflight.js'
import { lastCheckpoint } from './train-checkpoint.js'
import { preferenceWeights, type TrainConfig } from './train-config.js'
import type { Trainable } from './trainable.js'
import { type Metrics, runTrainer, type TrainerOptions } from './trainer.js'
import { type Batches, type Loss, type LossMetrics, meanMetrics, type TrainState } from './training-loop.js'

export interface FineTuneOptions extends Pick<TrainerOptions<never, never>, 'callbacks' | 'signal'>, PreflightOptions {
  /** Called with the errors of rows that are skipped. */
  readonly onSkipped?: (issues: readonly Issue[]) => void
  /** Worker threads that make samples. Default: 1. */
  readonly workers?: number
  /** Called with the total number of steps. */
  readonly onTotalSteps?: (steps: number) => void
  /** Called with warnings before the first step. */
  readonly onWarning?: (message: string) => void
  /** Trains together with other workers, each of which calls `fineTune` with its copy of the model and the data; see `joinWorkers`. */
  readonly parallel?: Parallel
  /** With several workers: called on worker 0 with the sizes that they share. */
  readonly onParallel?: (sizes: SharedSizes) => void
}

type Trained = PartialParams<InternVLParams>

/** A training objective: its batches, their loss, the weight of a batch, and how a batch is disposed. */
interface Objective<B> {
  readonly batches: (data: TrainingData) => Batches<B>
  readonly loss: Loss<Trained, B>
  readonly weightOf: (batch: B) => number
  readonly tokensOf: (batch: B) => number
  readonly disposeBatch: (batch: B) => void
}

const positionsOf = ({ generation }: InternVLCheckpoint, c: TrainConfig) =>
  v2pePositions(c['visual.delta'], generation.imageTokenId, c.seed)

const sftObjective = (internvl: InternVLCheckpoint, { frozen }: Trainable, c: TrainConfig, options: DataLoaderOptions) => {
  const padId = padIdOf(internvl.processor.tokenizer)
  return {
    batches: (data) => sftBatches(data, { ...options, padId, reduction: c['loss.reduction'] }, positionsOf(internvl, c)),
    loss: sftLoss((trained) => internvl.module.apply(combine<InternVLParams>(trained, frozen))),
    weightOf: sftWeight,
    tokensOf: ({ inputIds }) => inputIds.size,
    disposeBatch
  } satisfies Objective<Batch>
}

/** The reference model is the model as loaded. With LoRA the reference needs no extra memory. */
const pairObjective = (internvl: InternVLCheckpoint, { frozen }: Trainable, c: TrainConfig, options: DataLoaderOptions) => {
  const padId = padIdOf(internvl.processor.tokenizer)
  return {
    batches: (data) =>
      pairBatches(
        dataLoader(data, options),
        internvl.model,
        { padId, ...(options.share ? { share: options.share } : {}) },
        positionsOf(internvl, c)
      ),
    loss: pairLoss((trained) => internvl.module.apply(combine<InternVLParams>(trained, frozen)), { weights: preferenceWeights(c), beta: c['loss.beta'] }), // biome-ignore format: one line
    weightOf: ({ chosen }) => chosen.samples,
    tokensOf: ({ chosen, rejected }) => chosen.inputIds.size + rejected.inputIds.size,
    disposeBatch: disposePairs
  } satisfies Objective<PairBatch>
}

/** The mean loss and metrics over all batches of the validation set, which several workers share. */
const validationLoss = <B>(objective: Objective<B>, data: TrainingData, options: DataLoaderOptions, group?: WorkerGroup) => {
  const all = countBatches(data, options, 1)
  const batches = group ? Math.ceil((all - group.rank) / group.size) : all
  return async (trained: Trained): Promise<Metrics> => {
    const found: [LossMetrics, number][] = []
    let taken = 0
    for await (const batch of batches > 0 ? objective.batches(data)(0) : []) {
      if (batch !== undefined) {
        try {
          const batchLoss = () => {
            const { loss, metrics } = objective.loss(trained, batch, {})
            found.push([{ loss: loss.dataSync()[0]!, ...metrics }, objective.weightOf(batch)])
          }
          tf.tidy(batchLoss)
        } finally {
          objective.disposeBatch(batch)
        }
      }
      if (++taken === batches) break
    }
    return { loss: Number.NaN, ...meanMetrics(group ? await gatherMetrics(group, found) : found) }
  }
}

const optimizerOf = (internvl: InternVLCheckpoint, c: TrainConfig, steps: number) => {
  const warmupSteps = Math.round(c['optimizer.warmupRatio'] * steps)
  const learningRate = schedules[c['optimizer.schedule']]({
    learningRate: c['optimizer.learningRate'],
    warmupSteps,
    totalSteps: steps
  })
  const optimizer = adamW({
    learningRate,
    learningRateFactor: visionLayerDecay(internvl.config, c['optimizer.layerDecay']),
    beta1: c['optimizer.beta1'],
    beta2: c['optimizer.beta2'],
    weightDecay: c['optimizer.weightDecay'],
    decays: exceptNormsAndBiases
  })
  return { learningRate, optimizer }
}

/** The name of the base model for adapters and checkpoints: its name on the hub, or its absolute path. */
const baseOf = ({ dir }: InternVLCheckpoint, { model }: TrainConfig): string =>
  model === null || model === dir ? resolve(dir) : model

/** The settings that checkpoints store. */
const storedSettings = (internvl: InternVLCheckpoint, c: TrainConfig): TrainConfig => ({ ...c, model: baseOf(internvl, c) })

const runObjective = async <B>(
  internvl: InternVLCheckpoint,
  c: TrainConfig,
  found: PreflightResult,
  objectiveOf: (options: DataLoaderOptions) => Objective<B>,
  o: FineTuneOptions & DataLoaderOptions
) => {
  const { parallel } = o
  const steps = c.steps ?? Math.ceil(countBatches(found.data, o, c.epochs) / c['batch.gradientAccumulation'])
  o.onTotalSteps?.(steps)
  const params = mapParams((leaf) => leaf.clone())(found.parts.trained) // the loaded model may be the reference: train a copy
  const share = parallel && shareOf(parallel, c)
  const objective = objectiveOf(share ? { ...o, share } : o)
  const validated = parallel ? objectiveOf({ ...o, share: evaluationShare(parallel.group.rank, parallel.group.size) }) : objective
  if (parallel) await announce(parallel, params, o)
  const state = await runTrainer(params, objective.batches(found.data), {
    ...objective,
    ...(parallel && share ? { parallel: { ...parallel, share } } : {}),
    ...optimizerOf(internvl, c, steps),
    ...{ steps, gradientAccumulation: c['batch.gradientAccumulation'], maxGradNorm: c['optimizer.maxGradNorm'] },
    ...{ checkpoints: o.checkpoints, keepLast: c['save.keepLast'], saveSteps: c['save.steps'] },
    ...{ settings: storedSettings(internvl, c), dataDigest: found.dataDigest },
    precision: c.precision,
    training: {
      seed: c.seed,
      dropout: c['regularize.dropout'],
      dropPath: c['regularize.dropPath'],
      checkpointing: c.gradientCheckpointing
    },
    ...(found.validation
      ? { evaluate: validationLoss(validated, found.validation, o, parallel?.group), evaluateSteps: c['evaluate.steps'] }
      : {}),
    ...(o.callbacks ? { callbacks: o.callbacks } : {}),
    ...(o.resume ? { resume: o.resume } : {}),
    ...(o.signal ? { signal: o.signal } : {})
  })
  return { state, isFinished: state.step >= steps || !(parallel ?? o.signal?.aborted) }
}

/** The whole parameter tree with LoRA merged; merged weights are new tensors. */
const wholeModel = (trained: Trained, frozen: Trained): InternVLParams => mergeLora(combine<InternVLParams>(trained, frozen))

const trainedWithoutLora = (trained: Trained): readonly string[] =>
  namedParameters(trained).flatMap(([path]) => (isLoraPath(path) ? [] : [pathWithoutLora(path)]))

/** `lora.bias` as the adapter states it; biases that `train.only` trains are saved as their names allow. */
const biasOf = (c: TrainConfig) => (c['lora.bias'] === 'none' ? {} : { bias: c['lora.bias'] })

/** Trained parameters that a PEFT adapter cannot hold, as issues. */
const adapterIssues = ({ params }: InternVLCheckpoint, c: TrainConfig, trained: Trained): readonly Issue[] => {
  const [paths, lora] = [[...shapesWithoutLora(params).keys()], [...loraWeights(trained).keys()]]
  const { saved } = besideLora(paths, lora, trainedWithoutLora(trained), biasOf(c).bias)
  return E.isLeft(saved) ? saved.left : []
}

/** Writes the merged model and, where LoRA was trained and PEFT can hold all trained parameters, the adapter. */
const saveResult = async (internvl: InternVLCheckpoint, c: TrainConfig, trained: Trained, frozen: Trained): Promise<void> => {
  const params = wholeModel(trained, frozen)
  try {
    await save(c.output, { config: internvl.config, params, dtype: c['save.dtype'], processorFilesFrom: internvl.dir })
  } finally {
    disposeExcept([internvl.params, trained, frozen], params)
  }
  if (c['lora.rank'] === null || adapterIssues(internvl, c, trained).length > 0) return
  const options = { base: baseOf(internvl, c), beside: trainedWithoutLora(trained), ...biasOf(c) }
  await orThrow(saveAdapter(join(c.output, 'adapter'), combine<InternVLParams>(trained, frozen), options))
}

const warnings = (
  internvl: InternVLCheckpoint,
  c: TrainConfig,
  { parts }: PreflightResult,
  last: string | undefined,
  { resume }: FineTuneOptions
): readonly string[] => [
  ...(resume && last === undefined ? ['there is no checkpoint to resume from; training starts at step 0'] : []),
  ...(c.precision === 'float32' || usesTensorflowOps()
    ? []
    : [`precision ${c.precision} needs a GPU, or INTERNVL_KERNELS=tensorflow; training runs in float32`]),
  ...(c['lora.rank'] === null ? [] : adapterIssues(internvl, c, parts.trained)).map(
    ({ message }) => `only the merged model will be written, without an adapter: ${message}`
  )
]

/**
 * Fine-tunes a loaded model: trains with checkpoints and writes the result as a checkpoint folder to `output`, with LoRA merged, and the
 * PEFT adapter to `output/adapter` where PEFT can hold all trained parameters. Returns whether training finished; a run that the signal
 * stops writes no result. All errors of settings, data and patterns are found before the first step and thrown together as an
 * `InternVLError`.
 */
export const fineTune = async (internvl: InternVLCheckpoint, c: TrainConfig, options: FineTuneOptions): Promise<boolean> => {
  const { group } = options.parallel ?? {}
  try {
    const isFinished = await fineTuneHere(internvl, c, options)
    await group?.barrier() // worker 0 has written the result
    return isFinished
  } catch (error) {
    if (group) reportFailure(group, error)
    throw error
  }
}

/** Training on this worker. */
const fineTuneHere = async (internvl: InternVLCheckpoint, c: TrainConfig, given: FineTuneOptions): Promise<boolean> => {
  const { parallel } = given
  const writes = parallel === undefined || parallel.group.rank === 0
  const options = { ...given, writes }
  const settings = storedSettings(internvl, c)
  const check = () => preflight(internvl, c, settings, options)
  const found = parallel ? await checkTogether(parallel, internvl, settings, check) : await check()
  const skipped = [found.data, found.validation].flatMap((data) => data?.skipped ?? [])
  if (skipped.length > 0) options.onSkipped?.(skipped)
  const last = await lastCheckpoint(options.checkpoints)
  for (const message of writes ? warnings(internvl, c, found, last, options) : []) options.onWarning?.(message)
  const loading = { ...options, model: internvl.dir, config: c }
  let state: TrainState<Trained> | undefined
  try {
    const run =
      c['loss.type'] === 'sft'
        ? await runObjective(internvl, c, found, (o) => sftObjective(internvl, found.parts, c, o), loading)
        : await runObjective(internvl, c, found, (o) => pairObjective(internvl, found.parts, c, o), loading)
    state = run.state
    if (run.isFinished && writes) await saveResult(internvl, c, state.params, found.parts.frozen)
    return run.isFinished
  } finally {
    disposeExcept(internvl.params, ...(state ? [state.params, state.optimizer.first, state.optimizer.second] : []), found.parts)
  }
}
