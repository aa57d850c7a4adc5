import * as t from 'io-ts'

/** A token of tokenizer.json's `added_tokens`: matched in text as a whole. */
export interface AddedToken {
  readonly id: number
  readonly content: string
  readonly special: boolean
  readonly lstrip: boolean
  readonly rstrip: boolean
  readonly singleWord: boolean
}

/** A text with added tokens found in it. */
export type Found = string | AddedToken

/** Decides whether the token that stands at `[start, end)` of the text is meant as a token. */
export type Accepts = (token: AddedToken, start: number, end: number) => boolean

/** Named tokens of the checkpoint: `bos_token`, `eos_token`, `pad_token`, `context_image_token`, … to their text. */
export type TokenNames = Readonly<Record<string, string>>

/** How a file writes an added token. */
export const Token = t.intersection([
  t.type({ id: t.number, content: t.string }),
  t.partial({ special: t.boolean, lstrip: t.boolean, rstrip: t.boolean, single_word: t.boolean, normalized: t.boolean })
])
export type Token = t.TypeOf<typeof Token>

/** A file's token with what it leaves out. */
export const toAddedToken = ({ id, content, special, lstrip, rstrip, single_word }: Token): AddedToken => ({
  id,
  content,
  special: special ?? false,
  lstrip: lstrip ?? false,
  rstrip: rstrip ?? false,
  singleWord: single_word ?? false
})

/** The tokens of tokenizer.json with those that only tokenizer_config.json lists. */
export const withListed = (config: Readonly<Record<string, unknown>>, known: readonly Token[]): readonly Token[] => {
  const decoder = config.added_tokens_decoder
  if (!t.UnknownRecord.is(decoder)) return known
  const listed = Object.entries(decoder).flatMap(([id, token]) => {
    const whole = t.UnknownRecord.is(token) ? { ...token, id: Number(id) } : token
    return Token.is(whole) ? [whole] : []
  })
  return [...known, ...listed.filter(({ content }) => !known.some((token) => token.content === content))]
}

const Named = t.union([t.string, t.type({ content: t.string })])
const contentOf = (token: t.TypeOf<typeof Named>): string => (typeof token === 'string' ? token : token.content)

/** Tokens that a checkpoint names: `*_token` of tokenizer_config.json, and of its `extra_special_tokens`. */
export const tokenNames = (config: Readonly<Record<string, unknown>>): TokenNames => {
  const inside = [config.model_specific_special_tokens, config.extra_special_tokens, config].filter(t.UnknownRecord.is)
  const entries = inside.flatMap((record) => Object.entries(record))
  return Object.fromEntries(
    entries.flatMap(([name, value]) => (name.endsWith('_token') && Named.is(value) ? [[name, contentOf(value)] as const] : []))
  )
}

const escapeRegExp = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
const isWord = (character: string | undefined): boolean => character !== undefined && /[\p{L}\p{N}_]/u.test(character)

/** Finds added tokens in a text: the leftmost, and of those the longest, that `accepts` lets through. */
export const splitter = (tokens: readonly AddedToken[]) => {
  const byContent = new Map(tokens.map((token) => [token.content, token]))
  const longestFirst = [...byContent.keys()].filter((c) => c !== '').sort((a, b) => b.length - a.length)
  const pattern = longestFirst.length > 0 ? longestFirst.map(escapeRegExp).join('|') : '(?!)'
  return (text: string, accepts: Accepts = () => true): readonly Found[] => {
    const found: Found[] = []
    const matcher = new RegExp(pattern, 'g')
    let done = 0
    for (let match = matcher.exec(text); match; match = matcher.exec(text)) {
      const token = byContent.get(match[0])!
      const [start, end] = [match.index, match.index + match[0].length]
      const inWord = token.singleWord && (isWord(text[start - 1]) || isWord(text[end]))
      if (inWord || !accepts(token, start, end)) {
        matcher.lastIndex = start + 1
        continue
      }
      const before = text.slice(done, start)
      const after = token.rstrip ? text.slice(end).length - text.slice(end).trimStart().length : 0
      found.push(token.lstrip ? before.trimEnd() : before, token)
      matcher.lastIndex = done = end + after
    }
    return [...found, text.slice(done)].filter((piece) => piece !== '')
  }
}
