import { tf } from '../../lib/tf.js'
import type { InternVL } from '../../models/internvl/internvl.js'
import type { AnswerPart, ExplainedInput } from './explained-input.js'

/** Mean over heads of the attention weights `[1, H, L, L]` of each chosen layer: `[L, L]`. */
const headMeans = (model: InternVL, { ids, pixelValues }: ExplainedInput, layers: boolean | readonly number[]): tf.Tensor2D[] =>
  tf.tidy(() => {
    const inputIds = tf.tensor2d([...ids], [1, ids.length], 'int32')
    const { attentions } = model({ inputIds, pixelValues }, { outputAttentions: layers, logitsToKeep: 1 })
    return attentions!.map((weights) => weights.mean<tf.Tensor3D>(1).squeeze<tf.Tensor2D>([0]))
  })

/** The weights `[L, L]` of the queries that predict a part, over the image's tokens: `[T, side, side]`. */
const onImage = (
  weights: tf.Tensor2D,
  { tokens }: AnswerPart,
  { promptLength, imageTokens, image }: ExplainedInput
): tf.Tensor3D => {
  const side = Math.round(Math.sqrt(imageTokens.length / image.tiles))
  const queries = tokens.map((token) => promptLength + token - 1)
  const rows = weights.gather(tf.tensor1d(queries, 'int32')).sum<tf.Tensor1D>(0)
  return rows.gather(tf.tensor1d([...imageTokens], 'int32')).reshape([image.tiles, side, side])
}

/** Mean attention over the heads and the chosen layers (all by default), from the token before each token of a part to the image. */
export const attentionMaps = (
  model: InternVL,
  input: ExplainedInput,
  parts: readonly AnswerPart[],
  layers: boolean | readonly number[] = true
): readonly tf.Tensor3D[] =>
  tf.tidy(() => {
    const weights = tf.addN(headMeans(model, input, layers)) as tf.Tensor2D
    return parts.map((part) => onImage(weights, part, input))
  })

/**
 * Attention rollout: the product over the layers of `(A + I) / 2`, A the mean attention over heads, so that attention through other tokens
 * counts too. Source: Abnar and Zuidema 2020.
 */
export const rolloutMaps = (model: InternVL, input: ExplainedInput, parts: readonly AnswerPart[]): readonly tf.Tensor3D[] =>
  tf.tidy(() => {
    const means = headMeans(model, input, true)
    const identity = tf.eye(input.ids.length)
    const rollout = means
      .map((weights) => weights.add(identity).div<tf.Tensor2D>(2))
      .reduce((product, a) => tf.matMul(a, product))
    return parts.map((part) => onImage(rollout, part, input))
  })
