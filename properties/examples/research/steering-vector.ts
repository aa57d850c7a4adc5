import { type InternVLCheckpoint, tf } from '../../../generation/root.js'
import { record } from '../../../lib/tap/record.js'
import { tap } from '../../../lib/tap/tap.js'
import { inputsOf, nextProbabilities } from './scene.js'

/** The mean of a module's states at the last token over images, `[1, 1, D]`. */
const meanState = async (internvl: InternVLCheckpoint, path: string, images: readonly unknown[]): Promise<tf.Tensor3D> => {
  const recorder = record([path])
  for (const image of images) {
    const inputs = await inputsOf(internvl, image)
    nextProbabilities(tap(internvl, recorder), inputs)
    inputs.dispose()
  }
  const last = (states: tf.Tensor) => states.slice([0, states.shape[1]! - 1, 0], [1, 1, -1])
  const mean = tf.tidy(() => tf.concat(recorder.outputs[path]!.map(last)).mean<tf.Tensor3D>(0, true))
  recorder.dispose()
  return mean
}

/**
 * A steering vector: the mean of a layer's states at the last token over images of one kind, minus the mean over images of others, added to
 * the run of another image. Returns the probabilities `[V]` before and after. Source: Turner et al. 2023, activation addition.
 */
export const steer = async (
  internvl: InternVLCheckpoint,
  images: { readonly from: readonly unknown[]; readonly to: readonly unknown[]; readonly image: unknown },
  { layer, strength }: { readonly layer: number; readonly strength: number }
) => {
  const path = `model.language_model.layers.${layer}`
  const [from, to] = [await meanState(internvl, path, images.from), await meanState(internvl, path, images.to)]
  const inputs = await inputsOf(internvl, images.image)
  const steered = tap(internvl, {
    [path]: (y) => y.add(tf.concat([tf.zeros([1, y.shape[1]! - 1, y.shape[2]!]), to.sub(from).mul(strength)], 1)) // at the last token alone
  })
  const result = { before: nextProbabilities(internvl, inputs), after: nextProbabilities(steered, inputs) }
  tf.dispose([from, to])
  inputs.dispose()
  return result
}
