import { causalLoss, load, orThrow, tf, valueAndGrad } from '../../../generation/root.js'
import { adamW, disposeParams } from '../../../lib/index.js'
import { checkpoint, circle } from '../demo-files.js'

/** Trains every parameter on one conversation; returns the loss before every step. */
export const trainOnOneConversation = async (steps: number): Promise<readonly number[]> => {
  const { module, params: loaded, processor } = await load(checkpoint)
  const user = { role: 'user', content: [{ type: 'image', path: circle }, { type: 'text', text: 'What is this?' }] } as const // biome-ignore format: one line
  const conversation = [user, { role: 'assistant', content: 'A lonely circle.' }] as const
  const { inputIds, attentionMask, pixelValues } = await orThrow(
    processor.prepare([conversation], { addGenerationPrompt: false })
  )
  const [prompt] = [await orThrow(processor.countTokens([user]))]
  const labels = tf.tensor2d(
    inputIds.arraySync().map((row) => row.map((id, i) => (i < prompt ? -100 : id))),
    undefined,
    'int32'
  )

  const optimizer = adamW({ learningRate: 1e-3 })
  const loss = (p: typeof loaded) => causalLoss(module.apply(p)({ inputIds, pixelValues }, { attentionMask }).logits, labels)
  let [params, state] = [loaded, optimizer.init(loaded)]
  const losses: number[] = []
  for (let step = 0; step < steps; step++) {
    const { value, grads } = valueAndGrad(loss)(params)
    const next = optimizer.update(params, grads, state)
    losses.push(value.dataSync()[0]!)
    disposeParams([params, grads, state.first, state.second, value]) // the caller owns the old values and disposes them
    params = next.params
    state = next.state
  }
  disposeParams([params, state.first, state.second, inputIds, attentionMask, pixelValues, labels])
  return losses
}
