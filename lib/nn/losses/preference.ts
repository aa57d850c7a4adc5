import { expectAxes, ShapeError } from '../../shape.js'
import { tf } from '../../tf.js'

/** Values of chosen and rejected answers, pair by pair: log-probabilities summed over the tokens of an answer, or rewards. */
export interface PreferencePair<A> {
  readonly chosen: A
  readonly rejected: A
}

/** Running mean of the rewards of all batches, which BCO subtracts. Saved with the training checkpoint. */
export interface RunningRewardMean {
  readonly mean: number
  /** Number of batches so far. */
  readonly count: number
}

/** Before the first batch. */
export const initialRewardMean: RunningRewardMean = { mean: 0, count: 0 }

export interface PreferenceOptions {
  /** Weight of each loss; losses with weight 0 are not computed. */
  readonly weights: { readonly dpo?: number; readonly bco?: number; readonly nll?: number }
  /** Strength of the pull toward the reference model: 0.1 by default, as in TRL. */
  readonly beta?: number
}

export interface PreferenceLoss {
  /** The weighted sum. */
  readonly loss: tf.Scalar
  /** Value of each computed loss by name, for logs. */
  readonly parts: { readonly dpo?: number; readonly bco?: number; readonly nll?: number }
  /** `β (log π − log π₀)`, pair by pair. */
  readonly rewards: PreferencePair<readonly number[]>
  /** Running mean for the next batch. */
  readonly rewardMean: RunningRewardMean
}

/** `−log σ(x)`. `tf.logSigmoid` saves no input for its gradient, which fails if the input is disposed before. */
const negativeLogSigmoid = (x: tf.Tensor1D): tf.Tensor1D => x.neg().softplus()

/** Throws a `ShapeError` unless chosen and rejected are `[B]` with B of at least 1. */
const expectPairs = (operation: string, { chosen, rejected }: PreferencePair<tf.Tensor1D>): void => {
  const { B } = expectAxes(operation, { chosen: [chosen, 'B', 'float32'], rejected: [rejected, 'B', 'float32'] })
  if (B === 0) throw new ShapeError(`${operation}: no pairs`)
}

/** The running mean with one more batch, whose mean reward counts once. Source: `RunningMoments` (TRL), as `bco_pair` updates it. */
const updateRewardMean = ({ mean, count }: RunningRewardMean, batchMean: number): RunningRewardMean => ({
  mean: mean + (batchMean - mean) / (count + 1),
  count: count + 1
})

/** Mean of `−log σ(chosen − rejected)` over pairs' rewards `[B]`. Source: Rafailov et al. 2023, DPO; TRL's `sigmoid`. */
export const dpoLoss = ({ chosen, rejected }: PreferencePair<tf.Tensor1D>): tf.Scalar =>
  tf.tidy(() => {
    expectPairs('dpoLoss', { chosen, rejected })
    return negativeLogSigmoid(chosen.sub(rejected)).mean()
  })

/** Mean of `−log σ(chosen − δ) − log σ(δ − rejected)` over pairs' rewards `[B]`. Source: Jung et al. 2024, BCO; TRL's `bco_pair`. */
export const bcoLoss = ({ chosen, rejected }: PreferencePair<tf.Tensor1D>, delta: number): tf.Scalar =>
  tf.tidy(() => {
    expectPairs('bcoLoss', { chosen, rejected })
    return negativeLogSigmoid(chosen.sub(delta))
      .add<tf.Tensor1D>(negativeLogSigmoid(rejected.neg().add(delta)))
      .mean()
  })

/**
 * A preference loss by weights: `{ dpo: 1 }` is DPO, `{ dpo: 0.8, bco: 0.2, nll: 1 }` MPO. It takes the policy's log-probabilities
 * `[B]` (`logProbabilities`), those of the reference, the number of supervised tokens of all chosen answers (of which `nll` is
 * the mean), and the running mean of earlier rewards; BCO's δ includes the present batch. Throws a `RangeError` where no loss has weight.
 * Source: Wang et al. 2024, MPO; `MultimodalDPOTrainer` (OpenGVLab), after TRL.
 */
export const preferenceLoss =
  ({ weights, beta = 0.1 }: PreferenceOptions) =>
  (
    policy: PreferencePair<tf.Tensor1D>,
    reference: PreferencePair<readonly number[]>,
    chosenTokens: number,
    before: RunningRewardMean = initialRewardMean
  ): PreferenceLoss => {
    const { dpo = 0, bco = 0, nll = 0 } = weights
    if (![dpo, bco, nll].some((weight) => weight !== 0))
      throw new RangeError('preferenceLoss: the weights of dpo, bco and nll are all 0; give at least one a weight')
    expectPairs('preferenceLoss', policy)
    for (const [name, base] of Object.entries(reference))
      if (base.length !== policy.chosen.size)
        throw new ShapeError(`preferenceLoss: reference.${name}: expected ${policy.chosen.size} numbers, got ${base.length}`)
    const reward = (log: tf.Tensor1D, base: readonly number[]): tf.Tensor1D =>
      log.sub<tf.Tensor1D>(tf.tensor1d([...base])).mul(beta)
    const rewards = {
      chosen: reward(policy.chosen, reference.chosen),
      rejected: reward(policy.rejected, reference.rejected)
    }
    const [chosen, rejected] = [Array.from(rewards.chosen.dataSync()), Array.from(rewards.rejected.dataSync())]
    const rewardMean = updateRewardMean(before, [...chosen, ...rejected].reduce((a, b) => a + b, 0) / (2 * chosen.length))
    const losses = {
      ...(dpo !== 0 ? { dpo: dpoLoss(rewards) } : {}),
      ...(bco !== 0 ? { bco: bcoLoss(rewards, rewardMean.mean) } : {}),
      ...(nll !== 0 ? { nll: policy.chosen.sum().div<tf.Scalar>(-chosenTokens) } : {})
    }
    const entries = Object.entries(losses) as ReadonlyArray<readonly ['dpo' | 'bco' | 'nll', tf.Scalar]>
    return {
      loss: tf.addN(entries.map(([name, loss]) => loss.mul({ dpo, bco, nll }[name]))) as tf.Scalar,
      parts: Object.fromEntries(entries.map(([name, loss]) => [name, loss.dataSync()[0]!])),
      rewards: { chosen, rejected },
      rewardMean
    }
  }

/** MPO with the published weights. Source: InternVL3, section 2.3. */
export const mpo = preferenceLoss({ weights: { dpo: 0.8, bco: 0.2, nll: 1 } })

/** DPO alone. */
export const dpo = preferenceLoss({ weights: { dpo: 1 } })
