import { type InternVLCheckpoint, tf, valueAndGrad } from '../../../generation/root.js'
import { tap } from '../../../lib/tap/tap.js'
import { inputsOf } from './scene.js'

/**
 * Gradient-weighted attention: the attention weights of one layer times their gradient of a token's log-probability, the positive part, mean
 * over heads, from the last token to the image's tokens: `[side, side]`. `weights` is the same without the gradient. Source: Chefer et al. 2021.
 */
export const gradientWeightedAttention = async (internvl: InternVLCheckpoint, image: string, token: number, layer: number) => {
  const inputs = await inputsOf(internvl, image)
  const { inputIds, pixelValues } = inputs
  const ids = inputs.promptIds[0]!
  const [H, L] = [internvl.config.textConfig.numAttentionHeads, ids.length]
  const imageTokens = ids.flatMap((id, i) => (id === internvl.config.imageTokenId ? [i] : []))
  const side = Math.sqrt(imageTokens.length)
  const maps = tf.tidy(() => {
    let weights: tf.Tensor | undefined
    const logprob = ({ change }: { change: tf.Tensor }): tf.Scalar => {
      const tapped = tap(internvl, {
        [`language_model.layers.${layer}.self_attn.attention_weights`]: (w) => {
          weights = tf.keep(w.clone())
          return w.add(change) // zeros: they change nothing, and have the gradient of the weights
        }
      })
      return tf
        .logSoftmax(tapped.model({ inputIds, pixelValues }, { logitsToKeep: 1 }).logits)
        .flatten()
        .gather(token)
        .asScalar()
    }
    const { grads } = valueAndGrad(logprob)({ change: tf.zeros([1, H, L, L]) })
    const index = tf.tensor1d(imageTokens, 'int32')
    const mapOf = (x: tf.Tensor): number[] => Array.from(x.slice([0, 0, L - 1, 0], [1, H, 1, L]).mean(1).flatten().gather(index).dataSync()) // biome-ignore format: one line
    const result = { side, map: mapOf(grads.change.mul(weights!).relu()), weights: mapOf(weights!) }
    weights!.dispose()
    return result as never
  }) as { readonly side: number; readonly map: readonly number[]; readonly weights: readonly number[] }
  inputs.dispose()
  return maps
}
