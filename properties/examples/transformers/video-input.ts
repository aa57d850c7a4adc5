import { AutoModelForImageTextToText, AutoProcessor, type Messages } from '../../../generation/root.js'
import { checkpoint, frames } from '../demo-files.js'

/** "Video input": `numFrames` frames, evenly spaced. */
export const describeVideo = async (video: string = frames): Promise<string> => {
  const processor = await AutoProcessor.fromPretrained(checkpoint)
  const model = await AutoModelForImageTextToText.fromPretrained(checkpoint)
  const messages: Messages = [
    {
      role: 'user',
      content: [
        { type: 'video', url: video },
        { type: 'text', text: 'What happens in this video?' }
      ]
    }
  ]
  const inputs = await processor.applyChatTemplate(messages, {
    addGenerationPrompt: true,
    tokenize: true,
    returnDict: true,
    numFrames: 3
  })
  const output = await model.generate({ ...inputs, maxNewTokens: 25 })
  const decodedOutput = processor.decode(output[0]!.slice(inputs.inputIds.shape[1]), { skipSpecialTokens: true })
  inputs.dispose()
  model.dispose()
  return decodedOutput
}
