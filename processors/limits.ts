import { type Issue, issue } from '../lib/error.js'
import { DEFAULT_MAX_PIXELS } from './image/pixel-limit.js'
import { itemsOf, type Messages } from './text/messages.js'

/** Largest sizes of one request. They are checked before any text is tokenized and before any pixel is decoded. */
export interface InputLimits {
  /** Messages of a conversation. Default: 2,000. */
  readonly maxMessages?: number
  /** Characters of all texts of a conversation or prompt. Default: 500,000. */
  readonly maxCharacters?: number
  /** Images and videos of a batch. Default: 1,000. */
  readonly maxMedia?: number
  /** Frames sampled from one video. Default: 4,000. */
  readonly maxFrames?: number
  /** Tiles and frames of a batch. Default: 8,000. */
  readonly maxTiles?: number
  /** Pixels of an image with all its frames, or of a video's frame, checked before decoding. Default: Pillow's limit, for the first frame. */
  readonly maxPixels?: number
}

const DEFAULT_LIMITS: Required<InputLimits> = {
  maxMessages: 2000,
  maxCharacters: 500_000,
  maxMedia: 1000,
  maxFrames: 4000,
  maxTiles: 8000,
  maxPixels: DEFAULT_MAX_PIXELS
}

/** Error where `actual` exceeds a limit. */
export const limitIssue = (
  limits: InputLimits | undefined,
  name: keyof InputLimits,
  actual: number,
  where: string,
  unit: string
): readonly Issue[] => {
  const limit = limits?.[name] ?? DEFAULT_LIMITS[name]
  if (!(actual > limit)) return []
  const message = `${where}: ${actual} ${unit}, more than the limit of ${limit} (limits.${name}).`
  return [issue('TooLarge', message, { limit: name, expected: limit, actual })]
}

const isPlain = (value: object): boolean => [Object.prototype, null].includes(Object.getPrototypeOf(value))

/** Number of characters in all strings of a value. The loop has its own list of values to visit: a value may be nested too deeply for recursion. */
const countCharacters = (value: unknown): number => {
  const open = [value]
  let characters = 0
  while (open.length > 0) {
    const next = open.pop()
    if (typeof next === 'string') characters += next.length
    else if (Array.isArray(next) || (typeof next === 'object' && next !== null && isPlain(next)))
      for (const inner of Object.values(next)) open.push(inner)
  }
  return characters
}

/** Texts of a message; the sources of images and videos do not count. */
const textOf = ({ role: _, content, ...fields }: Messages[number]): unknown => [
  fields,
  typeof content === 'string' ? content : content?.flatMap((item) => (item.type === 'text' ? [item.text] : []))
]

/** Errors where a conversation has too many messages or characters. */
export const checkConversationSize = (messages: Messages, limits: InputLimits | undefined, where: string): readonly Issue[] => [
  ...limitIssue(limits, 'maxMessages', messages.length, where, 'messages'),
  ...limitIssue(limits, 'maxCharacters', countCharacters(messages.map(textOf)), where, 'characters')
]

/** Number of images and videos of a conversation. */
export const countMedia = (messages: Messages): number => messages.flatMap(itemsOf).filter(({ type }) => type !== 'text').length
