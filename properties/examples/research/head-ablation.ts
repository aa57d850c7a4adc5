import { type InternVLCheckpoint, tf } from '../../../generation/root.js'
import { tap } from '../../../lib/tap/tap.js'
import { inputsOf, nextProbabilities } from './scene.js'

/**
 * The probability of a token where heads attend to nothing: one head, by layer and head, and all heads of one layer. Source: Michel et
 * al. 2019.
 */
export const ablateHeads = async (internvl: InternVLCheckpoint, image: string, token: number) => {
  const inputs = await inputsOf(internvl, image)
  const { numHiddenLayers, numAttentionHeads: H } = internvl.config.textConfig
  const indices = (n: number): readonly number[] => Array.from({ length: n }, (_, i) => i)
  const without = (layer: number, isOff: (head: number) => boolean): number => {
    const headMask = indices(H).map((head) => Number(!isOff(head)))
    const path = `language_model.layers.${layer}.self_attn.attention_weights`
    return nextProbabilities(tap(internvl, { [path]: (weights) => weights.mul(tf.tensor4d(headMask, [1, H, 1, 1])) }), inputs)[
      token
    ]!
  }
  const layers = indices(numHiddenLayers)
  const result = {
    heads: layers.map((layer) => indices(H).map((head) => without(layer, (other) => other === head))),
    layers: layers.map((layer) => without(layer, () => true))
  }
  inputs.dispose()
  return result
}
