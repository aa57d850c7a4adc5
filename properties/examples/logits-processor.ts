import { answer, type LogitsProcessor, load } from '../../generation/root.js'
import { checkpoint, shapes } from './pictures.js'

/** A logits processor of one's own: the ids so far and the logits of what comes next, to new logits. */
const never =
  (...forbidden: readonly number[]): LogitsProcessor =>
  (_ids, logits) =>
    logits.map((logit, id) => (forbidden.includes(id) ? Number.NEGATIVE_INFINITY : logit))

/** A description that cannot say where. */
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
