import type { InternVLCheckpoint } from '../../generation/checkpoint/load.js'
import { tf } from '../../lib/tf.js'
import { scratch } from '../conformance/model-case.js'

/** Of each position of a text but the last: the log-probability of the next token in nats, and the most probable next token. */
export interface NextTokens {
  readonly losses: Float32Array
  readonly best: Int32Array
}

/** Logits of a text in chunks of positions, over the first `vocabulary` tokens. */
export const textLogits = (
  { model }: Pick<InternVLCheckpoint, 'model'>,
  ids: readonly number[],
  vocabulary: number
): tf.Tensor2D =>
  tf.tidy(() => {
    const { logits } = model({ inputIds: tf.tensor2d([[...ids]], undefined, 'int32') })
    return logits.slice([0, 0, 0], [1, ids.length, vocabulary]).reshape<tf.Tensor2D>([ids.length, vocabulary])
  })

/** Negative log-probabilities and predictions of the next tokens. */
export const nextTokens = (logits: tf.Tensor2D, ids: readonly number[]): NextTokens =>
  scratch(() => {
    const [rows, vocabulary] = logits.shape
    const before = logits.slice([0, 0], [rows - 1, vocabulary])
    const index = tf.tensor2d(
      ids.slice(1).map((id, i) => [i, id]),
      undefined,
      'int32'
    )
    const losses = before.logSumExp(1).sub(tf.gatherND(before, index))
    return { losses: losses.dataSync() as Float32Array, best: before.argMax(1).dataSync() as Int32Array }
  })

/** `exp` of the mean loss. */
export const perplexity = ({ losses }: NextTokens): number => Math.exp(losses.reduce((sum, x) => sum + x, 0) / losses.length)

/** Share of positions where two models predict the same token. */
export const agreement = (a: NextTokens, b: NextTokens): number =>
  a.best.filter((id, i) => id === b.best[i]).length / a.best.length
