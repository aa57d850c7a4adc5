import type * as E from 'fp-ts/lib/Either.js'
import { type Issues, issue, whenValid } from '../../lib/error.js'
import { type AddedToken, addedTokenSplitter, type TextOrToken, type TokenNames } from './added-tokens.js'
import type { ChatTemplate, MessageSpan, Prompt } from './chat-template.js'
import type { Piece, Tokenizer } from './tokenizer.js'

export type VisualKind = 'image' | 'video'

/** Tokens that mark images and videos in a prompt. */
export interface VisualTokens {
  readonly start: AddedToken
  readonly end: AddedToken
  /** Stands for one image feature. */
  readonly context: AddedToken
  /** Marks an image in the text of a template: `context`, or a text that the vocabulary may lack. */
  readonly image: AddedToken
  /** A placeholder only: the vocabulary may lack it. */
  readonly video: AddedToken
}

/** Tiles of an image or video, and tokens per tile. */
export interface VisualTokenCount {
  readonly kind: VisualKind
  readonly tiles: number
  readonly tokens: number
}

/** Texts of the visual tokens by their names in tokenizer_config.json. Source: OpenGVLab/InternVL3-1B-hf. */
export const VISUAL_TOKENS = {
  start_image_token: '<img>',
  end_image_token: '</img>',
  context_image_token: '<IMG_CONTEXT>',
  video_token: '<video>'
} as const

/** Text of a visual token: the one that tokenizer_config.json names, or the usual one. */
export const visualTokenText = (names: TokenNames, name: keyof typeof VISUAL_TOKENS): string => names[name] ?? VISUAL_TOKENS[name]

/** Id of the token that stands for one image feature (`<IMG_CONTEXT>`); undefined where the vocabulary lacks it. */
export const imageContextId = ({ names, idOf }: Pick<Tokenizer, 'names' | 'idOf'>): number | undefined =>
  idOf(visualTokenText(names, 'context_image_token'))

const NOT_IN_VOCABULARY = -1

/**
 * The visual tokens of a tokenizer; `imagePlaceholder` marks an image where it is not the token of image features. Errors: tokens that
 * the vocabulary lacks.
 */
export const visualTokens = (
  { names, addedTokens, idOf }: Tokenizer,
  dir: string,
  imagePlaceholder?: string
): E.Either<Issues, VisualTokens> => {
  const token = (name: keyof typeof VISUAL_TOKENS): AddedToken => tokenOf(visualTokenText(names, name))
  const tokenOf = (content: string): AddedToken => {
    const plain = {
      content,
      id: idOf(content) ?? NOT_IN_VOCABULARY,
      special: true,
      lstrip: false,
      rstrip: false,
      singleWord: false
    }
    return addedTokens.find((t) => t.content === content) ?? plain
  }
  const [start, end, context] = [token('start_image_token'), token('end_image_token'), token('context_image_token')]
  const missing = [start, end, context].filter(({ id }) => id === NOT_IN_VOCABULARY)
  return whenValid(
    missing.map(({ content }) =>
      issue('Tokenizer', `${dir}/tokenizer.json: no token ${content}; is this an InternVL tokenizer?`, { content })
    ),
    () => ({
      ...{ start, end, context },
      image: imagePlaceholder === undefined ? context : tokenOf(imagePlaceholder),
      video: token('video_token')
    })
  )
}

/** Texts that messages may quote but not use as tokens: special tokens, placeholders, and added tokens in the template's source. */
export const controlTokens = (tokenizer: Tokenizer, visual: VisualTokens, template: ChatTemplate): readonly string[] => {
  const added = tokenizer.addedTokens.filter(
    ({ special, content }) => special || (content.trim() !== '' && template.source.includes(content))
  )
  return [...new Set([...added, ...Object.values(visual)].map(({ content }) => content))]
}

/**
 * Splits a prompt on the tokens that the template wrote; tokens of `control` inside message texts stay text. The assistant's messages
 * may have tokens that are not special, such as `<think>` and `<tool_call>`.
 */
export type SplitPrompt = (prompt: Prompt, control: readonly string[]) => readonly TextOrToken[]

/** The last of disjoint, sorted spans that starts before a position. */
const lastBefore = (spans: readonly MessageSpan[], position: number): MessageSpan | undefined => {
  let [low, high] = [0, spans.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if (spans[middle]![0] < position) low = middle + 1
    else high = middle
  }
  return spans[low - 1]
}

/** Splitting on the special tokens of a tokenizer and the visual tokens. */
export const specialTokenSplitter = (tokenizer: Tokenizer, visual: VisualTokens): SplitPrompt => {
  const split = addedTokenSplitter([...tokenizer.addedTokens, ...Object.values(visual)])
  const visualTexts = new Set(Object.values(visual).map(({ content }: AddedToken) => content))
  return ({ text, spans }, control) => {
    const controlled = new Set(control)
    const sorted = spans.toSorted(([a], [b]) => a - b)
    const isText = ({ special, content }: AddedToken, start: number, end: number): boolean => {
      if (!controlled.has(content)) return false
      const span = lastBefore(sorted, end)
      return span !== undefined && start < span[1] && !(span[2] && !special && !visualTexts.has(content))
    }
    return split(text, (token, start, end) => !isText(token, start, end))
  }
}

/** Kinds of the placeholders in a split prompt, in order. */
export const placeholderKinds = (split: readonly TextOrToken[], { image, video }: VisualTokens): readonly VisualKind[] =>
  split.flatMap((piece) => {
    if (typeof piece === 'string') return []
    if (piece.content === image.content) return ['image']
    return piece.content === video.content ? ['video'] : []
  })

const imagePieces = ({ start, context, end }: VisualTokens, tokens: number): readonly Piece[] => [
  { id: start.id, count: 1 },
  { id: context.id, count: tokens },
  { id: end.id, count: 1 }
]

const videoPieces = (visual: VisualTokens, { tiles, tokens }: VisualTokenCount): readonly Piece[] =>
  Array.from({ length: tiles }, (_, i) => [`${i === 0 ? '' : '\n'}Frame${i + 1}: `, ...imagePieces(visual, tokens)]).flat()

/**
 * Placeholder expansion. An image becomes `<img>`, the context tokens of its tiles, `</img>`; a video becomes one such group
 * per frame, each after `Frame1: `, separated by line breaks.
 *
 * Source: `InternVLProcessor.replace_image_token`, `replace_video_token` (transformers 5.24).
 */
export const expandPlaceholders = (
  split: readonly TextOrToken[],
  counts: readonly VisualTokenCount[],
  visual: VisualTokens
): readonly Piece[] => {
  const remaining = [...counts]
  return split.flatMap((piece): readonly Piece[] => {
    if (typeof piece === 'string') return [piece]
    if (piece.content === visual.video.content) return videoPieces(visual, remaining.shift()!)
    if (piece.content !== visual.image.content) return [{ id: piece.id, count: 1 }]
    const { tiles, tokens } = remaining.shift()!
    return imagePieces(visual, tiles * tokens)
  })
}
