import { AutoModelForImageTextToText, AutoProcessor, type Messages } from '../../../generation/root.js'
import { checkpoint, circle, shapes, squares } from '../demo-files.js'

/** "Batched multi-image input": one row with one image, one row with two. */
export const compareImagesInOneBatch = async (): Promise<readonly string[]> => {
  const processor = await AutoProcessor.fromPretrained(checkpoint)
  const model = await AutoModelForImageTextToText.fromPretrained(checkpoint)
  const messages: readonly Messages[] = [
    [
      {
        role: 'user',
        content: [
          { type: 'image', url: circle },
          { type: 'text', text: 'How many circles are there?' }
        ]
      }
    ],
    [
      {
        role: 'user',
        content: [
          { type: 'image', url: squares },
          { type: 'image', url: shapes },
          { type: 'text', text: 'Which picture has more shapes?' }
        ]
      }
    ]
  ]
  const options = { padding: true, addGenerationPrompt: true, tokenize: true, returnDict: true } as const
  const inputs = await processor.applyChatTemplate(messages, options)
  const output = await model.generate({ ...inputs, maxNewTokens: 25 })
  inputs.dispose()
  model.dispose()
  return processor.batchDecode(output, { skipSpecialTokens: true })
}
