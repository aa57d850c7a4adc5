import { tidyDataSync } from '../../lib/data-sync.js'
import { crossEntropy, supervisedPositions, tokenLosses } from '../../lib/nn/losses/cross-entropy.js'
import {
  initialRewardMean,
  type PreferenceOptions,
  type PreferencePair,
  preferenceLoss,
  type RunningRewardMean
} from '../../lib/nn/losses/preference.js'
import { tf } from '../../lib/tf.js'
import type { InternVL } from '../../models/internvl/internvl.js'
import { type Batch, type BatchOptions, collate, disposeBatch } from './data/collate.js'
import type { Sample } from './data/sample.js'
import type { PreparedSample } from './data/sample-maker.js'
import { defaultPositions, type PositionScheme } from './data/v2pe-positions.js'
import type { WorkerShare } from './parallel/worker-share.js'
import type { Batches, Loss, LossMetrics } from './training-loop.js'

/** Builds the model from the trained parameters. */
export type ModelOf<P> = (trained: P) => InternVL

/**
 * Logits `[n, V]` of the supervised positions alone, because a head over 150,000 tokens costs as much as a decoder. `targetsOf` gathers
 * from a tensor `[B, L]` the values at the tokens that these positions predict.
 */
const supervisedLogits = (model: InternVL, batch: Batch) => {
  const { attentionMask, positionIds, segments, labels } = batch
  const positions = supervisedPositions(labels)
  const { logits } = model(batch, { attentionMask, positionIds, segments, logitsAt: positions })
  const next = tf.tensor1d(
    positions.map((position) => position + 1),
    'int32'
  )
  const targetsOf = (x: tf.Tensor2D): tf.Tensor1D => tf.gather(x.reshape<tf.Tensor1D>([-1]), next)
  return { logits: logits.reshape<tf.Tensor2D>([positions.length, -1]), positions, targetsOf }
}

/** Loss of supervised fine-tuning: the weighted mean cross-entropy of the supervised tokens. */
export const sftLoss =
  <P>(modelOf: ModelOf<P>): Loss<P, Batch> =>
  (params, batch) => {
    const { logits, targetsOf } = supervisedLogits(modelOf(params), batch)
    return { loss: crossEntropy(logits, targetsOf(batch.labels), targetsOf(batch.lossWeights)) }
  }

/** Weight of a batch in the mean of several `sftLoss`: the sum of its loss weights. */
export const sftWeight = ({ lossWeights }: Batch): number => tf.tidy(() => lossWeights.sum().dataSync()[0]!)

/** Chosen and rejected answers to the same questions, and their log-probabilities under the reference model. */
export interface PairBatch extends PreferencePair<Batch> {
  readonly reference: PreferencePair<readonly number[]>
}

export const disposePairs = ({ chosen, rejected }: PairBatch): void => [chosen, rejected].forEach(disposeBatch)

/** `log p(answer)` of every sample, `[B]`. */
const answerLogs = (model: InternVL, batch: Batch): tf.Tensor1D => {
  const { logits, positions, targetsOf } = supervisedLogits(model, batch)
  const [B, L] = batch.labels.shape
  const rowMask = Array.from({ length: B }, (_, row) => positions.map((at) => (Math.floor(at / L) === row ? -1 : 0)))
  return tf.matMul(tf.tensor2d(rowMask), tokenLosses(logits, targetsOf(batch.labels)).reshape<tf.Tensor2D>([-1, 1])).reshape([B])
}

/** A batch of pairs with the log-probabilities of the reference. Disposes its tensors where it throws. */
const withReference = (prepared: readonly PreparedSample[], reference: InternVL, options: BatchOptions): PairBatch => {
  const collated: Batch[] = []
  const add = (samples: readonly Sample[]): Batch => {
    const batch = collate(samples, options)
    collated.push(batch)
    return batch
  }
  const referenceLogs = (batch: Batch) => Array.from(tidyDataSync(() => answerLogs(reference, batch)))
  try {
    const [chosen, rejected] = [add(prepared.map(({ sample }) => sample)), add(prepared.map((pair) => pair.rejected!))]
    return { chosen, rejected, reference: { chosen: referenceLogs(chosen), rejected: referenceLogs(rejected) } }
  } catch (error) {
    collated.forEach(disposeBatch)
    throw error
  }
}

/** Batches of pairs. The reference model runs once per batch, outside of the training step. */
export const pairBatches = (
  samples: Batches<readonly PreparedSample[]>,
  reference: InternVL,
  {
    share: { group, groups } = { group: 0, groups: 1 },
    ...options
  }: BatchOptions & { readonly share?: Pick<WorkerShare, 'group' | 'groups'> },
  positionsOf: PositionScheme = defaultPositions
): Batches<PairBatch> =>
  async function* (start) {
    let position = start + group
    for await (const prepared of samples(start)) {
      const positions = positionsOf(position)
      position += groups
      if (prepared === undefined) {
        yield undefined
        continue
      }
      yield withReference(prepared, reference, { ...options, positions })
    }
  }

const mean = (values: readonly number[]): number => values.reduce((sum, x) => sum + x, 0) / values.length

/**
 * Mean rewards of chosen and rejected answers, mean margin, and the share of pairs whose chosen answer has the larger reward. Names and
 * definitions are those of TRL's `DPOTrainer`.
 */
export const rewardMetrics = ({ chosen, rejected }: PreferencePair<readonly number[]>): LossMetrics => ({
  'rewards/chosen': mean(chosen),
  'rewards/rejected': mean(rejected),
  'rewards/margins': mean(chosen.map((reward, i) => reward - rejected[i]!)),
  'rewards/accuracies': mean(chosen.map((reward, i) => (reward > rejected[i]! ? 1 : 0)))
})

/**
 * Preference loss of pairs: DPO, MPO or any mixture, with the rewards as metrics. The loss state holds the running reward mean of BCO.
 */
export const pairLoss = <P>(modelOf: ModelOf<P>, options: PreferenceOptions): Loss<P, PairBatch> => {
  const preference = preferenceLoss(options)
  return (params, { chosen, rejected, reference }, lossState) => {
    const model = modelOf(params)
    const logs = { chosen: answerLogs(model, chosen), rejected: answerLogs(model, rejected) }
    const before: RunningRewardMean = { ...initialRewardMean, ...lossState }
    const { loss, rewards, rewardMean } = preference(logs, reference, chosen.supervised, before)
    return { loss, lossState: { ...rewardMean }, metrics: rewardMetrics(rewards) }
  }
}
