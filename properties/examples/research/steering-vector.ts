import { type InternVLCheckpoint, tf } from '../../../generation/root.js'
import { record } from '../../../lib/tap/record.js'
import { tap } from '../../../lib/tap/tap.js'
import { inputsOf, nextProbabilities } from './scene.js'

/**
 * A steering vector: the mean of a layer's states at the last token over images of one kind, minus the mean over images of others, added to
 * the run of another image. Returns the probabilities `[V]` before and after. Source: Turner et al. 2023, activation addition.
 */
export const steer = async (
  internvl: InternVLCheckpoint,
  {
    from,
    to,
    image,
    layer,
    strength
  }: Record<'from' | 'to', readonly unknown[]> & { image: unknown; layer: number; strength: number }
) => {
  const path = `model.language_model.layers.${layer}`
  const meanState = async (images: readonly unknown[]): Promise<tf.Tensor> => {
    const recorder = record([path])
    for (const one of images) {
      const inputs = await inputsOf(internvl, one)
      nextProbabilities(tap(internvl, recorder), inputs)
      inputs.dispose()
    }
    const mean = tf.tidy(() => {
      const last = recorder.outputs[path]!.map((states) => states.slice([0, states.shape[1]! - 1, 0], [1, 1, -1]))
      return tf.concat(last).mean(0, true)
    })
    recorder.dispose()
    return mean
  }
  const [before, after, inputs] = [await meanState(from), await meanState(to), await inputsOf(internvl, image)]
  const steered = tap(internvl, {
    [path]: (y) => {
      const vector = after.sub(before).mul<tf.Tensor3D>(strength)
      return y.add(
        tf.pad3d(vector, [
          [0, 0],
          [y.shape[1]! - 1, 0],
          [0, 0]
        ])
      ) // at the last token alone
    }
  })
  const result = { before: nextProbabilities(internvl, inputs), after: nextProbabilities(steered, inputs) }
  tf.dispose([before, after])
  inputs.dispose()
  return result
}
