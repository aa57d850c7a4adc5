import type { Loss, TrainOptions } from '../../../generation/train/training-loop.js'
import { initialState, train } from '../../../generation/train/training-loop.js'
import { adamW } from '../../../lib/optim/adamw.js'
import { tf } from '../../../lib/tf.js'

// A linear regression that is small enough to train in a test; the data depends on the position alone.

export type Line = { readonly weight: tf.Tensor2D; readonly bias: tf.Tensor1D }
export interface Points {
  readonly x: tf.Tensor2D
  readonly y: tf.Tensor2D
}

export const line = (): Line => ({ weight: tf.zeros([1, 3]), bias: tf.zeros([1]) })

export const pointsAt = (position: number): Points => {
  const x = tf.randomNormal<tf.Rank.R2>([4, 3], 0, 1, 'float32', position + 1)
  return { x, y: tf.tidy(() => x.matMul(tf.tensor2d([[1], [-2], [0.5]])).add(3)) }
}

export function* points(position: number): Generator<Points, void, void> {
  for (let at = position; ; at++) yield pointsAt(at)
}

/** Mean squared error; the loss state counts batches. */
export const square: Loss<Line, Points> = ({ weight, bias }, { x, y }, { batches = 0 }) => ({
  loss: x.matMul<tf.Tensor2D>(weight, false, true).add(bias).sub(y).square().mean(),
  lossState: { batches: batches + 1 }
})

export const settings = { loss: square, optimizer: adamW({ learningRate: 0.05 }) } satisfies TrainOptions<Line, Points>

/** Losses of an uninterrupted run. */
export const lossesOf = async (steps: number): Promise<readonly number[]> => {
  const losses: number[] = []
  let last = initialState(line(), settings.optimizer)
  for await (const { loss, state } of train(last, points, { ...settings, steps })) {
    losses.push(loss)
    last = state
  }
  tf.dispose([last.params, last.optimizer.first, last.optimizer.second])
  return losses
}
