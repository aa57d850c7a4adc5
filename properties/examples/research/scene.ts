import { type InternVLCheckpoint, type ModelInputs, orThrow, readImage, tf } from '../../../generation/root.js'

/** The question that the recipes ask about the demo's image: a green circle, a black star, a blue and a pink triangle. */
export const question = 'What color is the shape at the top left?'

/** Inputs of the question about an image, a file or raw pixels. The caller disposes them. */
export const inputsOf = ({ processor }: InternVLCheckpoint, image: unknown, text = question): Promise<ModelInputs> =>
  orThrow(
    processor.prepare([
      [
        {
          role: 'user',
          content: [
            { type: 'image', image: image as string },
            { type: 'text', text }
          ]
        }
      ]
    ])
  )

/** The image with every pixel of one colour in another colour. */
export const recoloured = async (file: string, from: readonly number[], to: readonly number[]) => {
  const image = await orThrow(readImage(file))
  const data = Uint8Array.from(image.data)
  for (let i = 0; i < data.length; i += 3) if (from.every((value, c) => data[i + c] === value)) data.set(to, i)
  return { ...image, data, channels: 3 as const }
}

/** The id of the first token of a text. */
export const firstToken = ({ processor }: InternVLCheckpoint, text: string): number =>
  processor.tokenizer.encode(text, { addSpecialTokens: false })[0]!

/** Probabilities `[V]` of the token after the prompt. */
export const nextProbabilities = (
  { model }: Pick<InternVLCheckpoint, 'model'>,
  { inputIds, pixelValues }: ModelInputs
): Float32Array =>
  tf.tidy(() => model({ inputIds, pixelValues }, { logitsToKeep: 1 }).logits.softmax().flatten().dataSync() as Float32Array)
