import type * as E from 'fp-ts/lib/Either.js'
import type { Issues } from '../../lib/error.js'
import { issue, whenValid } from '../../lib/error.js'
import { type AddedToken, splitter } from './added-tokens.js'
import type { ChatTemplate, Prompt } from './chat-template.js'
import type { Piece, Tokenizer } from './tokenizer.js'

/** The tokens that pictures are written with. */
export interface VisualTokens {
  readonly start: AddedToken
  readonly end: AddedToken
  readonly context: AddedToken
  /** Only a placeholder: it may be missing from the vocabulary. */
  readonly video: AddedToken
}

/** How many tiles a picture or film has, and how many tokens a tile. */
export interface Extent {
  readonly kind: 'image' | 'video'
  readonly tiles: number
  readonly tokens: number
}

const NOT_IN_VOCABULARY = -1

/** The tokens around pictures: named by tokenizer_config.json, else by their usual text. Errors: those that the vocabulary lacks. */
export const visualTokens = ({ names, addedTokens, idOf }: Tokenizer, dir: string): E.Either<Issues, VisualTokens> => {
  const token = (name: string, otherwise: string): AddedToken => {
    const content = names[name] ?? otherwise
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
  const start = token('start_image_token', '<img>')
  const end = token('end_image_token', '</img>')
  const context = token('context_image_token', '<IMG_CONTEXT>')
  const missing = [start, end, context].filter(({ id }) => id === NOT_IN_VOCABULARY)
  return whenValid(
    missing.map(({ content }) =>
      issue('Tokenizer', `${dir}/tokenizer.json: no token ${content}; is this an InternVL tokenizer?`, { content })
    ),
    () => ({ start, end, context, video: token('video_token', '<video>') })
  )
}

/** Which texts a person may quote but not use: special tokens, placeholders, and added tokens that the template itself writes. */
export const controlTokens = (tokenizer: Tokenizer, visual: VisualTokens, template: ChatTemplate): readonly string[] => {
  const added = tokenizer.addedTokens.filter(
    ({ special, content }) => special || (content.trim() !== '' && template.source.includes(content))
  )
  return [...new Set([...added, ...Object.values(visual)].map(({ content }) => content))]
}

/** Cuts a prompt at the tokens that the template wrote; those of `control` that people wrote are text. */
export type Cut = (prompt: Prompt, control: readonly string[]) => readonly (string | AddedToken)[]

/** See `Cut`. */
export const cutter = (tokenizer: Tokenizer, visual: VisualTokens): Cut => {
  const split = splitter([...tokenizer.addedTokens, ...Object.values(visual)])
  return ({ text, spans }, control) => {
    const known = new Set(control)
    const quoted = (start: number, end: number): boolean => spans.some(([from, to]) => start < to && from < end)
    return split(text, ({ content }, start, end) => !(known.has(content) && quoted(start, end)))
  }
}

/** The kinds of placeholders of a cut prompt, in order. */
export const placeholders = (
  cut: readonly (string | AddedToken)[],
  { context, video }: VisualTokens
): readonly Extent['kind'][] =>
  cut.flatMap((piece) =>
    typeof piece === 'string'
      ? []
      : piece.content === context.content
        ? ['image']
        : piece.content === video.content
          ? ['video']
          : []
  )

const ofImage = ({ start, context, end }: VisualTokens, { tiles, tokens }: Extent): readonly Piece[] => [
  { id: start.id, times: 1 },
  { id: context.id, times: tiles * tokens },
  { id: end.id, times: 1 }
]

const ofVideo = (visual: VisualTokens, { tiles, tokens, kind }: Extent): readonly Piece[] =>
  Array.from({ length: tiles }, (_, i) => [
    `${i === 0 ? '' : '\n'}Frame${i + 1}: `,
    ...ofImage(visual, { kind, tiles: 1, tokens })
  ]).flat()

/**
 * Placeholders written out: a picture as `<img>`, its tiles' tokens, `</img>`; a film as that for every frame, with
 * `Frame1: ` before it and a line's end between.
 *
 * Source: `InternVLProcessor.replace_image_token`, `replace_video_token` (transformers 5.23).
 */
export const expand = (
  cut: readonly (string | AddedToken)[],
  extents: readonly Extent[],
  visual: VisualTokens
): readonly Piece[] => {
  const left = [...extents]
  return cut.flatMap((piece): readonly Piece[] => {
    if (typeof piece === 'string') return [piece]
    if (piece.content === visual.context.content) return ofImage(visual, left.shift()!)
    if (piece.content === visual.video.content) return ofVideo(visual, left.shift()!)
    return [{ id: piece.id, times: 1 }]
  })
}
