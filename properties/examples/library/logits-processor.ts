import { answer, type LogitsProcessor, load } from '../../../generation/root.js'
import { checkpoint, shapes } from '../demo-files.js'

/** A custom logits processor: a function of the ids so far and the next token's logits to new logits. */
const never =
  (...forbidden: readonly number[]): LogitsProcessor =>
  (_ids, logits) =>
    logits.map((logit, id) => (forbidden.includes(id) ? Number.NEGATIVE_INFINITY : logit))

/** A description of an image without the given word. */
export const describeWithoutWord = async (word: string): Promise<string> => {
  const internvl = await load(checkpoint)
  const ids = internvl.processor.tokenizer.encode(word)
  const { texts } = await answer(
    internvl,
    [
      [
        {
          role: 'user',
          content: [
            { type: 'image', path: shapes },
            { type: 'text', text: 'Describe the image.' }
          ]
        }
      ]
    ],
    { logitsProcessors: [never(...ids)] }
  )
  internvl.dispose()
  return texts[0]!
}
