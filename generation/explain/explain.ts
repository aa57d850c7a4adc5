import { setImmediate as yieldToEventLoop } from 'node:timers/promises'
import { valueText } from '../../lib/error.js'
import { tf } from '../../lib/tf.js'
import type { Rgb } from '../../processors/image/resize.js'
import type { Messages } from '../../processors/text/messages.js'
import type { InternVLCheckpoint } from '../checkpoint/load.js'
import { attentionMaps, rolloutMaps } from './attention-maps.js'
import {
  type AnswerPart,
  answerTokens,
  answerWords,
  type ExplainedInput,
  type ExplainInputOptions,
  explainedInput
} from './explained-input.js'
import { gradientMap } from './gradient-maps.js'
import { mapOverImage, normalizedMap } from './heat-map.js'
import { type ExplainMethod, explainMethods } from './methods.js'
import { occlusionMaps } from './occlusion-maps.js'

export interface ExplainOptions extends ExplainInputOptions {
  /**
   * `occlusion`, the default: how much the log-probability falls where a cell of the image is covered. `gradient`: integrated gradients of the
   * pixels. `attention`: mean attention weights of the decoder. `rollout`: attention rollout.
   */
  readonly method?: ExplainMethod | undefined
  /** A word of the answer, or the index of a token in the answer (-1 is the last with text); by default a map for each word. */
  readonly token?: string | number | undefined
  /** Maps for words, the default, or for tokens. */
  readonly by?: 'word' | 'token' | undefined
  /** Occlusion: cells along the longer side of the image; 12 by default. */
  readonly cells?: number | undefined
  /** Gradient: steps of the integral; 16 by default. */
  readonly steps?: number | undefined
  /** Attention: layers of the decoder, -1 is the last; all by default. */
  readonly layers?: readonly number[] | undefined
  /** Images of one forward; 16 by default. */
  readonly batchSize?: number | undefined
  /**
   * Called before each batch with the work done and in total, and awaited; at the end both are equal. Occlusion counts covered images,
   * gradient the steps of all parts, attention and rollout their one forward.
   */
  readonly onProgress?: ((done: number, total: number) => void | Promise<void>) | undefined
}

/** A part of the answer with its heat map over the image, `[height, width]`: not negative, its sum is 1, or 0 where nothing counts. */
export interface ExplainedPart extends AnswerPart {
  readonly map: tf.Tensor2D
}

/** The heat maps of an answer. The caller calls `dispose`. */
export interface Explanation {
  readonly method: ExplainMethod
  readonly answer: string
  /** The image, upright. */
  readonly image: Rgb
  readonly parts: readonly ExplainedPart[]
  readonly dispose: () => void
}

const whole = (name: string, value: number, least: number, most: number): void => {
  if (!Number.isSafeInteger(value) || value < least || value > most)
    throw new RangeError(`${name}: expected a whole number from ${least} to ${most}, got ${valueText(value)}`)
}

/** The options of the maps with their defaults, and those of the answer. Throws a `RangeError` that names the first invalid option. */
const splitOptions = ({
  method = 'occlusion',
  by = 'word',
  token,
  cells = 12,
  steps = 16,
  batchSize = 16,
  layers,
  onProgress,
  ...answer
}: ExplainOptions) => {
  if (!explainMethods.includes(method))
    throw new RangeError(`method: expected ${explainMethods.join(', ')}, got ${valueText(method)}`)
  if (by !== 'word' && by !== 'token') throw new RangeError(`by: expected word or token, got ${valueText(by)}`)
  if (token !== undefined && typeof token !== 'string' && !Number.isSafeInteger(token))
    throw new RangeError(`token: expected a word or a whole number, got ${valueText(token)}`)
  whole('cells', cells, 1, 128)
  whole('steps', steps, 1, 1024)
  whole('batchSize', batchSize, 1, 4096)
  return { answer, maps: { method, by, token, cells, steps, batchSize, layers, onProgress, signal: answer.signal } }
}
type MapOptions = ReturnType<typeof splitOptions>['maps']

/** The parts that the options choose. Throws a `RangeError` that names the parts where none is chosen. */
const chosenParts = (
  internvl: InternVLCheckpoint,
  answer: readonly number[],
  { token, by }: Pick<MapOptions, 'token' | 'by'>
): readonly AnswerPart[] => {
  const isTokens = by === 'token' || typeof token === 'number'
  const parts = (isTokens ? answerTokens : answerWords)(internvl, answer)
  if (token === undefined) return parts
  const fold = (text: string): string => text.trim().toLowerCase()
  const chosen = typeof token === 'string' ? parts.filter(({ text }) => fold(text) === fold(token)) : [parts.at(token)].flatMap((part) => part ?? []) // biome-ignore format: one line
  if (chosen.length > 0) return chosen
  const names = parts.map(({ text }, i) => (isTokens ? `${i} ${JSON.stringify(text)}` : text)).join(', ')
  throw new RangeError(`token: ${valueText(token)} is not in the answer; the answer has ${names || 'no text'}`)
}

/** The signed map over the image of each part. */
const signedMaps = async (
  { model }: InternVLCheckpoint,
  input: ExplainedInput,
  parts: readonly AnswerPart[],
  { method, cells, steps, batchSize, layers, onProgress, signal }: MapOptions
): Promise<readonly tf.Tensor2D[]> => {
  const { image } = input
  const pause = async (done: number, total: number): Promise<void> => {
    await onProgress?.(done, total)
    await yieldToEventLoop() // TensorFlow blocks the event loop: abort signals are delivered here
    signal?.throwIfAborted()
  }
  if (method === 'occlusion') {
    const maps = await occlusionMaps(model, input, parts, { cells, batchSize, onProgress: pause })
    return tf.tidy(() => {
      const asTile = { ...image, rows: 1, columns: 1 }
      const results = maps.map((map) => mapOverImage(map.expandDims<tf.Tensor3D>(0), asTile))
      for (const map of maps) map.dispose()
      return results
    })
  }
  const maps: tf.Tensor2D[] = []
  const total = method === 'gradient' ? parts.length * steps : 1
  try {
    if (method === 'gradient')
      for (const [i, part] of parts.entries()) {
        const onStep = (done: number): Promise<void> => pause(i * steps + done, total)
        const map = await gradientMap(model, input, part, { steps, batchSize, onProgress: onStep })
        maps.push(tf.tidy(() => mapOverImage(map, image)))
        map.dispose()
      }
    else {
      await pause(0, total)
      const overTiles = () =>
        method === 'rollout' ? rolloutMaps(model, input, parts) : attentionMaps(model, input, parts, layers)
      maps.push(...tf.tidy(() => overTiles().map((map) => mapOverImage(map, image))))
    }
    await pause(total, total)
    return maps
  } catch (error) {
    tf.dispose(maps)
    throw error
  }
}

/**
 * Explains an answer about an image: for each word or token of the answer a heat map over the original image, put together from the tiles
 * and the thumbnail by the tiling. Throws an `InternVLError` for messages and images, a `RangeError` for options.
 *
 * `const { parts } = await explain(internvl, messages, { method: 'occlusion', token: 'red' })`
 */
export const explain = async (
  internvl: InternVLCheckpoint,
  messages: Messages,
  options: ExplainOptions = {}
): Promise<Explanation> => {
  const { answer: answerOptions, maps: mapOptions } = splitOptions(options)
  const input = await explainedInput(internvl, messages, answerOptions)
  try {
    const answer = input.ids.slice(input.promptLength)
    const chosen = chosenParts(internvl, answer, mapOptions)
    const maps = await signedMaps(internvl, input, chosen, mapOptions)
    const parts = chosen.map((part, i) => ({ ...part, map: normalizedMap(maps[i]!) }))
    tf.dispose(maps as tf.Tensor[])
    return {
      method: mapOptions.method,
      answer: internvl.processor.decode(answer, { skipSpecialTokens: true }),
      image: input.image.pixels,
      parts,
      dispose: () => tf.dispose(parts.map(({ map }) => map))
    }
  } finally {
    input.dispose()
  }
}
