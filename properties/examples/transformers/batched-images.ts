import { AutoModelForImageTextToText, AutoProcessor, type Messages } from '../../../generation/root.js'
import { checkpoint, circle, shapes } from '../demo-files.js'

/** "Batched image and text inputs". */
export const describeImagesInOneBatch = async (): Promise<readonly string[]> => {
  const processor = await AutoProcessor.fromPretrained(checkpoint)
  const model = await AutoModelForImageTextToText.fromPretrained(checkpoint)
  const ask = (url: string, text: string): Messages => [
    {
      role: 'user',
      content: [
        { type: 'image', url },
        { type: 'text', text }
      ]
    }
  ]
  const messages = [ask(shapes, 'Describe the image.'), ask(circle, 'What color is the background?')]
  const inputs = await processor.applyChatTemplate(messages, {
    padding: true,
    addGenerationPrompt: true,
    tokenize: true,
    returnDict: true
  })
  const output = await model.generate({ ...inputs, maxNewTokens: 50 })
  inputs.dispose()
  model.dispose()
  return processor.batchDecode(output, { skipSpecialTokens: true })
}
