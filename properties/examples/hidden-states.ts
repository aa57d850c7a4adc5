import { load, orThrow, tf } from '../../generation/root.js'
import { checkpoint } from './pictures.js'

/** How far each decoder layer moves the last token: the norm of the difference between its output and its input. */
export const movementOfLayers = async (text: string): Promise<readonly number[]> => {
  const { model, processor, dispose } = await load(checkpoint)
  const { inputIds, attentionMask } = await orThrow(processor.prepare([[{ role: 'user', content: text }]]))
  const movements = tf.tidy(() => {
    const { hiddenStates } = model({ inputIds }, { attentionMask, outputHiddenStates: true })
    const last = hiddenStates!.map((state) => state.slice([0, state.shape[1] - 1, 0], [1, 1, -1]))
    return last.slice(1).map((state, i) => state.sub(last[i]!).norm().dataSync()[0]!)
  })
  tf.dispose([inputIds, attentionMask])
  dispose()
  return movements
}
