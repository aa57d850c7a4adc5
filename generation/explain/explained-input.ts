import { InputError, issue, orThrow } from '../../lib/error.js'
import type { tf } from '../../lib/tf.js'
import type { Rgb, Size } from '../../processors/image/resize.js'
import type { Grid } from '../../processors/image/tiling.js'
import type { PrepareOptions } from '../../processors/processor.js'
import type { Messages } from '../../processors/text/messages.js'
import type { InternVLCheckpoint } from '../checkpoint/load.js'
import { generateAll } from '../decoding/generate.js'
import type { GenerateOptions } from '../decoding/generation-options.js'

/** A part of the answer to explain: its text, and the indices of its tokens in the answer. */
export interface AnswerPart {
  readonly text: string
  readonly tokens: readonly number[]
}

/** One image of a conversation: its upright size, the grid of its tiles without the thumbnail, and its tiles in `pixelValues`. */
export interface ExplainedImage extends Size, Grid {
  /** The pixels of the image, upright. */
  readonly pixels: Rgb
  readonly firstTile: number
  readonly tiles: number
}

/** A conversation with its answer as inputs of the model, and one of its images. The caller calls `dispose`. */
export interface ExplainedInput {
  /** Token ids of prompt and answer; the answer begins at `promptLength`. */
  readonly ids: readonly number[]
  readonly promptLength: number
  /** `[T, 3, height, width]`: the tiles of all images. */
  readonly pixelValues: tf.Tensor4D
  readonly image: ExplainedImage
  /** Indices in `ids` of the tokens of the image, tile by tile. */
  readonly imageTokens: readonly number[]
  readonly dispose: () => void
}

export interface ExplainInputOptions extends PrepareOptions {
  /** Index of the image to explain, among the images of the conversation; the first by default. */
  readonly image?: number | undefined
  /** The answer to explain; by default the model's own greedy answer. */
  readonly answer?: string | undefined
  /** Maximum number of tokens of the model's own answer; 64 by default. */
  readonly maxNewTokens?: number | undefined
  readonly signal?: AbortSignal | undefined
}

/** The parts of an answer, a token each; tokens without text, such as end tokens, are left out. */
export const answerTokens = ({ processor }: InternVLCheckpoint, answer: readonly number[]): readonly AnswerPart[] =>
  answer.flatMap((id, i) => {
    const text = processor.decode([id], { skipSpecialTokens: true })
    return text === '' ? [] : [{ text, tokens: [i] }]
  })

/** The words of an answer: letters and digits together, any other character but spaces as a word of its own. */
export const answerWords = ({ processor }: InternVLCheckpoint, answer: readonly number[]): readonly AnswerPart[] => {
  const decode = (end: number) => processor.decode(answer.slice(0, end), { skipSpecialTokens: true })
  const ends = answer.map((_, i) => decode(i + 1).length)
  return [...decode(answer.length).matchAll(/[\p{L}\p{N}\p{M}]+|[^\s\p{L}\p{N}\p{M}]/gu)].map(({ 0: text, index }) => ({
    text,
    tokens: ends.flatMap((end, i) => (end > index && (ends[i - 1] ?? 0) < index + text.length ? [i] : []))
  }))
}

const optionError = (name: string, message: string): InputError => new InputError([issue('Option', `${name}: ${message}`)])

type Visual = { readonly tiles: number; readonly layout?: Size & Grid }

/** The image of a conversation by its index, with its tiles, and the number of images and frames before it. */
const imageAt = (
  visuals: readonly Visual[],
  index: number
): Omit<ExplainedImage, 'pixels'> & { readonly decodedBefore: number } => {
  const images = visuals.flatMap(({ layout, tiles }, i) => {
    const before = visuals.slice(0, i)
    const firstTile = before.reduce((sum, visual) => sum + visual.tiles, 0)
    const decodedBefore = before.reduce((sum, visual) => sum + (visual.layout ? 1 : visual.tiles), 0) // a video has a tile a frame
    return layout ? [{ ...layout, tiles, firstTile, decodedBefore }] : []
  })
  const image = images[index]
  if (image) return image
  if (images.length === 0) throw optionError('messages', 'expected an image to explain, got none; add one to the conversation')
  throw optionError('image', `expected an index from 0 to ${images.length - 1}, got ${index}`)
}

/** Token ids of the answer: the given text, or the model's own by greedy search. */
const answerIds = async (
  { model, processor, generation }: InternVLCheckpoint,
  inputs: Parameters<typeof generateAll>[1],
  { answer, maxNewTokens = 64, signal }: ExplainInputOptions
): Promise<readonly number[]> => {
  if (answer !== undefined) return processor.tokenizer.encode(answer, { addSpecialTokens: false })
  const { eosTokenIds, imageTokenId, maxPositionEmbeddings } = generation
  const options: GenerateOptions = { eosTokenIds, imageTokenId, maxPositionEmbeddings, maxNewTokens, signal, flash: false }
  const { sequences } = await generateAll(model, inputs, options)
  signal?.throwIfAborted()
  return sequences[0]!
}

/**
 * Prepares a conversation and its answer. Tiles are never compressed, also where the model has a router (InternVL3.5-Flash). Throws an
 * `InternVLError` for messages and images that cannot be read, and for a conversation without the image.
 */
export const explainedInput = async (
  internvl: InternVLCheckpoint,
  messages: Messages,
  options: ExplainInputOptions = {}
): Promise<ExplainedInput> => {
  const { processor } = internvl
  const { image: index = 0, answer: _, maxNewTokens: __, signal: ___, ...prepare } = options
  const { visuals } = await orThrow(processor.encodeBatch([messages], prepare))
  const { decodedBefore, ...layout } = imageAt(visuals, index)
  const decoded: Rgb[] = []
  const retouch = async (pixels: Rgb): Promise<Rgb> => {
    const shown = prepare.retouch ? await prepare.retouch(pixels) : pixels
    decoded.push(shown)
    return shown
  }
  const inputs = await orThrow(processor.prepare([messages], { ...prepare, retouch }))
  const image = { ...layout, pixels: decoded[decodedBefore]! }
  try {
    const answer = await answerIds(internvl, inputs, options)
    if (answer.length === 0) throw optionError('answer', 'expected at least one token, got an empty answer')
    const prompt = inputs.promptIds[0]!
    const imageTokens = prompt.flatMap((id, i) => (id === internvl.config.imageTokenId ? [i] : []))
    const perTile = imageTokens.length / inputs.pixelValues!.shape[0]
    const pixelValues = inputs.pixelValues!.clone()
    return {
      ids: [...prompt, ...answer],
      promptLength: prompt.length,
      pixelValues,
      image,
      imageTokens: imageTokens.slice(image.firstTile * perTile, (image.firstTile + image.tiles) * perTile),
      dispose: () => pixelValues.dispose()
    }
  } finally {
    inputs.dispose()
  }
}
