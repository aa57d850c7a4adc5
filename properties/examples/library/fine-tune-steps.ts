import { causalLoss, load, orThrow } from '../../../generation/root.js'
// biome-ignore format: one line
import { type Batch, collate, disposeBatch, encodeSample, initialState, type Loss, padIdOf, train } from '../../../generation/train/index.js'
import { adamW, combine, disposeParams, mapParams, partition, schedules } from '../../../lib/index.js'
import { checkpoint, circle, squares } from '../demo-files.js'

const conversation = (path: string, answer: string) => ({
  id: path,
  task: 'example',
  messages: [
    { role: 'user', content: [{ type: 'image', path }, { type: 'text', text: 'What is this?' }] },
    { role: 'assistant', content: answer }
  ]
}) as const // biome-ignore format: the turns as they are read

/** Trains projector and decoder on two conversations with a frozen vision tower; returns the loss before every step. */
export const fineTuneAFewSteps = async (steps: number): Promise<readonly number[]> => {
  const { module, params, processor, dispose } = await load(checkpoint)
  const rows = [conversation(circle, 'A lonely circle.'), conversation(squares, 'A crowd of squares.')]
  const samples = await Promise.all(rows.map((row) => orThrow(encodeSample(processor, row))))
  const batches = function* () {
    while (true) yield collate(samples, { padId: padIdOf(processor.tokenizer) })
  }
  const [trainable, frozen] = partition((path) => !path.includes('vision_tower'))(params)
  const loss: Loss<typeof trainable, Batch> = (trained, batch) => {
    const { logits } = module.apply(combine<typeof params>(trained, frozen))(batch, { attentionMask: batch.attentionMask })
    return { loss: causalLoss(logits, batch.labels, batch.lossWeights) }
  }
  const learningRate = schedules.cosine({ learningRate: 1e-3, warmupSteps: 1, totalSteps: steps })
  const optimizer = adamW({ learningRate })
  let state = initialState(mapParams((leaf) => leaf.clone())(trainable), optimizer) // training must not change the loaded parameters
  const losses: number[] = []
  for await (const report of train(state, batches, { loss, optimizer, learningRate, steps, maxGradNorm: 1, disposeBatch })) {
    losses.push(report.loss)
    state = report.state
  }
  disposeParams([state.params, state.optimizer.first, state.optimizer.second])
  dispose()
  return losses
}
