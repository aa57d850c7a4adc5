import { AutoModelForImageTextToText, AutoProcessor, type ContentItem, type Messages } from '../../../generation/root.js'
import { checkpoint, circle, frames, shapes, squares } from '../demo-files.js'

/** "Interleaved image and video inputs": a row with two images, a row with a video, a row with one image. */
export const answerMixedBatch = async (): Promise<readonly string[]> => {
  const processor = await AutoProcessor.fromPretrained(checkpoint)
  const model = await AutoModelForImageTextToText.fromPretrained(checkpoint)
  const ask = (text: string, ...media: readonly ContentItem[]): Messages => [
    { role: 'user', content: [...media, { type: 'text', text }] }
  ]
  const messages = [
    ask('Which picture has more shapes?', { type: 'image', url: squares }, { type: 'image', url: shapes }),
    ask('What happens in this video?', { type: 'video', url: frames }),
    ask('What color is the background?', { type: 'image', url: circle })
  ]
  const inputs = await processor.applyChatTemplate(messages, {
    padding: true,
    addGenerationPrompt: true,
    tokenize: true,
    returnDict: true
  })
  const outputs = await model.generate({ ...inputs, maxNewTokens: 25 })
  inputs.dispose()
  model.dispose()
  return processor.batchDecode(outputs, { skipSpecialTokens: true })
}
