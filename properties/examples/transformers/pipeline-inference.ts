import { type Messages, pipeline } from '../../../generation/root.js'
import { checkpoint, shapes } from '../demo-files.js'

/** "Inference with Pipeline". */
export const describeWithPipeline = async (): Promise<string> => {
  const messages: Messages = [
    {
      role: 'user',
      content: [
        { type: 'image', image: shapes },
        { type: 'text', text: 'Describe the image.' }
      ]
    }
  ]
  const pipe = await pipeline('image-text-to-text', checkpoint)
  const outputs = await pipe(messages, { maxNewTokens: 50, returnFullText: false })
  pipe.dispose()
  return outputs[0]!.generatedText
}
