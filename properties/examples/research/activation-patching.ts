import { type InternVLCheckpoint, tf } from '../../../generation/root.js'
import { record } from '../../../lib/tap/record.js'
import { tap } from '../../../lib/tap/tap.js'
import { inputsOf, nextProbabilities } from './scene.js'

/** Rows of `[1, L, D]` at the given positions from `clean`, the others from `corrupted`. */
const mixed = (corrupted: tf.Tensor, clean: tf.Tensor, positions: readonly number[]): tf.Tensor => {
  const L = corrupted.shape[1]!
  const chosen = tf.tensor3d([Array.from({ length: L }, (_, i) => [Number(positions.includes(i))])])
  return corrupted.add(clean.sub(corrupted).mul(chosen))
}

/**
 * Activation patching: the probability of a token after a corrupted image, where the output of one layer is restored from the run of the
 * clean image: at the image's tokens, or at the last token. Source: Meng et al. 2022, causal tracing.
 */
export const patchLayers = async (internvl: InternVLCheckpoint, clean: unknown, corrupted: unknown, token: number) => {
  const layers = record(['language_model.layers.*'])
  const [cleanInputs, corruptedInputs] = [await inputsOf(internvl, clean), await inputsOf(internvl, corrupted)]
  nextProbabilities(tap(internvl, layers), cleanInputs)
  const ids = corruptedInputs.promptIds[0]!
  const imageTokens = ids.flatMap((id, i) => (id === internvl.config.imageTokenId ? [i] : []))
  const restore = (positions: readonly number[]) =>
    Object.keys(layers.outputs).map((path) => {
      const patched = tap(internvl, { [path]: (y) => mixed(y, layers.last(path), positions) })
      return nextProbabilities(patched, corruptedInputs)[token]!
    })
  const result = {
    clean: nextProbabilities(internvl, cleanInputs)[token]!,
    corrupted: nextProbabilities(internvl, corruptedInputs)[token]!,
    atImage: restore(imageTokens),
    atLast: restore([ids.length - 1])
  }
  layers.dispose()
  cleanInputs.dispose()
  corruptedInputs.dispose()
  return result
}
