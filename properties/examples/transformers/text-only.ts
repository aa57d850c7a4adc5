import { AutoModelForImageTextToText, AutoProcessor, type Messages } from '../../../generation/root.js'
import { checkpoint } from '../demo-files.js'

/** "Text-only generation". */
export const answerWithoutImages = async (): Promise<string> => {
  const processor = await AutoProcessor.fromPretrained(checkpoint)
  const model = await AutoModelForImageTextToText.fromPretrained(checkpoint)
  const messages: Messages = [{ role: 'user', content: [{ type: 'text', text: 'Who are you?' }] }]
  const inputs = await processor.applyChatTemplate(messages, { addGenerationPrompt: true, tokenize: true, returnDict: true })
  const generateIds = await model.generate({ ...inputs, maxNewTokens: 50 })
  const decodedOutput = processor.decode(generateIds[0]!.slice(inputs.inputIds.shape[1]), { skipSpecialTokens: true })
  inputs.dispose()
  model.dispose()
  return decodedOutput
}
