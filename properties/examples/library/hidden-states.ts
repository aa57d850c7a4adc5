import { load, orThrow, tf } from '../../../generation/root.js'
import { checkpoint } from '../demo-files.js'

/** For every decoder layer, the norm of the change of the last token's hidden state. */
export const hiddenStateChanges = async (text: string): Promise<readonly number[]> => {
  const { model, processor, dispose } = await load(checkpoint)
  const { inputIds, attentionMask } = await orThrow(processor.prepare([[{ role: 'user', content: text }]]))
  const changes = tf.tidy(() => {
    const { hiddenStates } = model({ inputIds }, { attentionMask, outputHiddenStates: true })
    const last = hiddenStates!.map((state) => state.slice([0, state.shape[1] - 1, 0], [1, 1, -1]))
    return last.slice(1).map((state, i) => state.sub(last[i]!).norm().dataSync()[0]!)
  })
  tf.dispose([inputIds, attentionMask])
  dispose()
  return changes
}
