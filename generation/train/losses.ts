import { crossEntropy, learnedPlaces, tokenLosses } from '../../lib/nn/losses/cross-entropy.js'
import {
  noRewards,
  type PairLogs,
  type PreferenceOptions,
  preferenceLoss,
  type RewardShift
} from '../../lib/nn/losses/preference.js'
import { numbersOf } from '../../lib/numbers.js'
import { tf } from '../../lib/tf.js'
import type { InternVL } from '../../models/internvl/internvl.js'
import { type Batch, type BatchOptions, batchOf, disposeBatch } from './data/collate.js'
import type { Prepared } from './data/prepare.js'
import { counted, type VisualSteps } from './data/v2pe-steps.js'
import type { Batches, Loss } from './training-loop.js'

/** A model of the parameters that are trained. */
export type ModelOf<P> = (trained: P) => InternVL

/**
 * Logits `[n, V]` of the places that are learned, for a head over 150,000 tokens costs as much as a decoder; and `of`, what the tokens
 * that they predict have in `[B, L]`.
 */
const learnedLogits = (model: InternVL, batch: Batch) => {
  const { attentionMask, positionIds, segments, labels } = batch
  const places = learnedPlaces(labels)
  const { logits } = model(batch, { attentionMask, positionIds, segments, logitsAt: places })
  const next = tf.tensor1d(
    places.map((place) => place + 1),
    'int32'
  )
  const of = (x: tf.Tensor2D): tf.Tensor1D => tf.gather(x.reshape<tf.Tensor1D>([-1]), next)
  return { logits: logits.reshape<tf.Tensor2D>([places.length, -1]), places, of }
}

/** Answers to learn: the weighted mean of the loss of their tokens. */
export const sftLoss =
  <P>(modelOf: ModelOf<P>): Loss<P, Batch> =>
  (params, batch) => {
    const { logits, of } = learnedLogits(modelOf(params), batch)
    return { loss: crossEntropy(logits, of(batch.labels), of(batch.lossWeights)) }
  }

/** What a batch counts beside others in the mean of `sftLoss`. */
export const sftWeight = ({ lossWeights }: Batch): number => tf.tidy(() => lossWeights.sum().dataSync()[0]!)

/** Chosen and rejected answers to the same questions, and how likely the reference holds them. */
export interface PairBatch extends PairLogs<Batch> {
  readonly reference: PairLogs<readonly number[]>
}

export const disposePairs = ({ chosen, rejected }: PairBatch): void => [chosen, rejected].forEach(disposeBatch)

/** `log p(answer)` of every sample, `[B]`. */
const answerLogs = (model: InternVL, batch: Batch): tf.Tensor1D => {
  const { logits, places, of } = learnedLogits(model, batch)
  const [B, L] = batch.labels.shape
  const isOf = Array.from({ length: B }, (_, row) => places.map((place) => (Math.floor(place / L) === row ? -1 : 0)))
  return tf.matMul(tf.tensor2d(isOf), tokenLosses(logits, of(batch.labels)).reshape<tf.Tensor2D>([-1, 1])).reshape([B])
}

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
      const ask = (batch: Batch) => Array.from(numbersOf(() => answerLogs(reference, batch)))
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
