import { type Answer, type ChatSettings, type Exchange, type Medium, promptOf } from '../exchange.js'

/** Methods of `POST /v1/explain` with the meaning of their maps; the server takes the first by default. */
export const heatMethods = {
  occlusion: "How much the token's probability falls where a part of the image is covered.",
  gradient: 'Where a change of the pixels changes the probability of the token.',
  attention: 'Where the decoder attends before the token: the mean over its layers and heads.',
  rollout: 'Attention that reaches the image through other tokens too.'
} as const
export type HeatMethod = keyof typeof heatMethods

/** A token of an answer, and the image that its heat map covers. */
export interface HeatTarget {
  readonly exchangeId: number
  readonly token: number
  /** The token without spaces. */
  readonly text: string
  readonly medium: Medium
  /** Body of the request, without the method. */
  readonly body: object
}

/**
 * The text of an answer up to and with a token; spaces between tokens are the text's, for a tokenizer may decode single tokens without
 * them. Undefined where a token is not in the text: an end token, a part of a character.
 */
const textUpTo = ({ tokens, grounded }: Answer, index: number): string | undefined => {
  let end = 0
  for (const { token } of tokens.slice(0, index + 1)) {
    const start = end + grounded.slice(end).search(/\S|$/)
    const word = token.trim()
    if (!grounded.startsWith(word, start)) return undefined
    end = start + word.length
  }
  return grounded.slice(0, end)
}

/**
 * The heat map of one token of the last exchange's answer, over the preferred image if the prompt shows it, else over its last image.
 * The answer is sent up to the token, which is then its last: later tokens have no influence. A sentence where there is no such map.
 */
export const heatTarget = (
  exchanges: readonly Exchange[],
  settings: ChatSettings,
  token: number,
  preferred?: Medium
): HeatTarget | string => {
  const { media, messages } = promptOf(exchanges, settings)
  const images = media.filter(({ kind }) => kind === 'image')
  const { id, answer } = exchanges.at(-1)!
  const text = answer.tokens[token]?.token.trim()
  const upTo = textUpTo(answer, token)
  const found = images.findIndex((image) => image.id === preferred?.id)
  const image = found >= 0 ? found : images.length - 1
  if (image < 0) return 'There is no heat map: no image was shown before this answer.'
  if (!text || !upTo)
    return 'There is no heat map: the token, or one before it, is no text of the answer. Choose an earlier token.'
  const { maxPatches } = settings
  const tiles = maxPatches === undefined ? {} : { max_patches: maxPatches }
  return { exchangeId: id, token, text, medium: images[image]!, body: { messages, image, answer: upTo, token: -1, ...tiles } }
}
