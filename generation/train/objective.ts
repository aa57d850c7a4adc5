import { causalLoss, logProbabilities } from '../../lib/nn/loss.js'
import { noRewards, type PairLogs, type PreferenceOptions, preferenceLoss, type RewardShift } from '../../lib/nn/preference.js'
import { tf } from '../../lib/tf.js'
import type { InternVL } from '../../models/internvl.js'
import { type Batch, type BatchOptions, batchOf, disposeBatch } from './batch.js'
import type { Batches, Loss } from './loop.js'
import type { Prepared } from './prepare.js'
import { counted, type VisualSteps } from './visual-steps.js'

/** A model of the parameters that are trained. */
export type ModelOf<P> = (trained: P) => InternVL

const logits = (model: InternVL, batch: Batch): tf.Tensor3D => {
  const { attentionMask, positionIds, segments } = batch
  return model(batch, { attentionMask, positionIds, segments }).logits
}

/** Answers to learn: the weighted mean of the loss of their tokens. */
export const sftLoss =
  <P>(modelOf: ModelOf<P>): Loss<P, Batch> =>
  (params, batch) => ({ loss: causalLoss(logits(modelOf(params), batch), batch.labels, batch.lossWeights) })

/** What a batch counts beside others in the mean of `sftLoss`. */
export const sftWeight = ({ lossWeights }: Batch): number => tf.tidy(() => lossWeights.sum().dataSync()[0]!)

/** Chosen and rejected answers to the same questions, and how likely the reference holds them. */
export interface PairBatch extends PairLogs<Batch> {
  readonly reference: PairLogs<readonly number[]>
}

export const disposePairs = ({ chosen, rejected }: PairBatch): void => [chosen, rejected].forEach(disposeBatch)

const answerLogs = (model: InternVL, batch: Batch): tf.Tensor1D => logProbabilities(logits(model, batch), batch.labels)

/** Pairs, for which the reference is asked once a batch, outside of training. */
export const pairBatches = (
  samples: Batches<readonly Prepared[]>,
  reference: InternVL,
  options: BatchOptions,
  stepsOf: VisualSteps = counted
): Batches<PairBatch> =>
  async function* (position) {
    let place = position
    for await (const prepared of samples(position)) {
      const positions = stepsOf(place++)
      if (prepared === undefined) {
        yield undefined
        continue
      }
      const chosen = batchOf(prepared.map(({ sample }) => sample), { ...options, positions }) // biome-ignore format: one line
      const rejected = batchOf(prepared.map((pair) => pair.rejected!), { ...options, positions }) // biome-ignore format: one line
      const ask = (batch: Batch) => tf.tidy(() => Array.from(answerLogs(reference, batch).dataSync()))
      yield { chosen, rejected, reference: { chosen: ask(chosen), rejected: ask(rejected) } }
    }
  }

/** MPO, DPO, or any mixture; BCO's running shift is the run's memory. */
export const pairLoss = <P>(modelOf: ModelOf<P>, options: PreferenceOptions): Loss<P, PairBatch> => {
  const preference = preferenceLoss(options)
  return (params, { chosen, rejected, reference }, memory) => {
    const model = modelOf(params)
    const logs = { chosen: answerLogs(model, chosen), rejected: answerLogs(model, rejected) }
    const before: RewardShift = { ...noRewards, ...memory }
    const { loss, shift } = preference(logs, reference, chosen.learned, before)
    return { loss, memory: { ...shift } }
  }
}
