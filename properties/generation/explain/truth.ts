import type { InternVLCheckpoint } from '../../../generation/checkpoint/load.js'
import { sceneSample } from '../../../generation/demo/scenes.js'
import { type ExplainOptions, explain } from '../../../generation/explain/explain.js'
import { explainedInput } from '../../../generation/explain/explained-input.js'
import { medianColours } from '../../../generation/explain/gradient-maps.js'
import { partScores } from '../../../generation/explain/scores.js'
import { tf } from '../../../lib/tf.js'
import type { Rgb } from '../../../processors/image/resize.js'
import type { ContentItem, Messages } from '../../../processors/text/messages.js'

/** A rendered scene with the question for the colour of one shape, and the pixels of this shape. */
export interface ColourScene {
  readonly messages: Messages
  /** The colour word of the right answer, in lower case. */
  readonly word: string
  /** 1 at the pixels of the shape, `[height · width]`. */
  readonly mask: Float32Array
  /** Whether the image is wide or tall; the other images are nearly square. */
  readonly isLong: boolean
}

/** Scene `index` of a seed: "What color is the shape at the top left?". The shape is one colour in its quarter of the image. */
export const colourScene = (seed: number, index: number): ColourScene => {
  const [question, answer] = sceneSample(seed, index, { color: 1 }).messages as unknown as [
    { content: ContentItem[] },
    { content: string }
  ]
  const [{ image }, { text }] = question.content as unknown as [{ image: Rgb }, { text: string }]
  const { width, height, data } = image
  const colourAt = (i: number) => data.slice(3 * i, 3 * i + 3).join(' ')
  const inQuarter = (i: number): boolean =>
    text.includes('right') === i % width >= width / 2 && text.includes('bottom') === Math.floor(i / width) >= height / 2
  const pixels = Array.from({ length: width * height }, (_, i) => i)
  const background = colourAt(0)
  const mask = Float32Array.from(pixels, (i) => Number(inQuarter(i) && colourAt(i) !== background))
  const isLong = Math.max(width / height, height / width) > 1.5
  return { messages: [question] as unknown as Messages, word: answer.content.replace('.', '').toLowerCase(), mask, isLong }
}

/** The truth of one map. */
export interface Truth {
  /** Share of the map's sum on the shape. */
  readonly mass: number
  /** Whether the largest value lies on the shape. */
  readonly hit: boolean
  /** Mean probability of the word while pixels of the median colour are replaced by the image's, most important first. */
  readonly insertion: number
  /** Mean probability of the word while the image's pixels are replaced by the median colour, most important first. */
  readonly deletion: number
}

/** Pixels that are replaced at each of the points of the curves, as shares of the image. */
const shares = [0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1]

/** Insertion and deletion of a map `[height, width]` for one word of the answer. Source: Petsiuk et al. 2018 (RISE). */
const curves = async (internvl: InternVLCheckpoint, messages: Messages, map: tf.Tensor2D, tokens: readonly number[]) => {
  const input = await explainedInput(internvl, messages)
  const probabilities = tf.tidy(() => {
    const [, , h, w] = input.pixelValues.shape
    const resized = tf.image.resizeBilinear(map.expandDims<tf.Tensor3D>(2), [h, w], false, true).dataSync()
    const order = [...resized.keys()].sort((a, b) => resized[b]! - resized[a]!)
    const rank = new Float32Array(h * w)
    for (const [position, pixel] of order.entries()) rank[pixel] = (position + 0.5) / (h * w)
    const ranks = tf.tensor(rank, [1, 1, h, w])
    const colours = medianColours(input.pixelValues)
    const important = tf.concat(shares.map((share) => ranks.less(share).toFloat()))
    const shown = tf.concat([important, tf.sub(1, important)])
    const images = colours.add<tf.Tensor4D>(input.pixelValues.sub(colours).mul(shown))
    const scores = partScores(
      internvl.model,
      input,
      [{ text: '', tokens }],
      internvl.model.imageFeatures(images),
      images.shape[0]
    )
    return scores.exp().dataSync()
  })
  input.dispose()
  const area = (values: Float32Array): number =>
    shares.slice(1).reduce((sum, share, i) => sum + ((values[i]! + values[i + 1]!) / 2) * (share - shares[i]!), 0)
  const n = shares.length
  return { insertion: area(probabilities.slice(0, n) as Float32Array), deletion: area(probabilities.slice(n) as Float32Array) }
}

/** The truth of the map of the colour word is on one scene; undefined where the model's answer is wrong. */
export const truthOf = async (
  internvl: InternVLCheckpoint,
  { messages, word, mask }: ColourScene,
  options: ExplainOptions
): Promise<Truth | undefined> => {
  const explanation = await explain(internvl, messages, { ...options, maxNewTokens: 8 })
  try {
    const part = explanation.parts[0]
    if (part?.text.toLowerCase() !== word) return undefined
    const values = (await part.map.data()) as Float32Array
    const mass = values.reduce((sum, value, i) => sum + value * mask[i]!, 0)
    const most = values.reduce((best, value, i) => (value > values[best]! ? i : best), 0)
    return { mass, hit: mask[most] === 1, ...(await curves(internvl, messages, part.map, part.tokens)) }
  } finally {
    explanation.dispose()
  }
}
