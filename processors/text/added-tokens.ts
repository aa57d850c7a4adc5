import * as t from 'io-ts'

/** An entry of tokenizer.json's `added_tokens`: a text that is always one token. */
export interface AddedToken {
  readonly id: number
  readonly content: string
  readonly special: boolean
  readonly lstrip: boolean
  readonly rstrip: boolean
  readonly singleWord: boolean
}

/** A piece of a split text: plain text, or an added token. */
export type TextOrToken = string | AddedToken

/** Whether the token text at `[start, end)` is a token; otherwise it stays plain text. */
export type AcceptToken = (token: AddedToken, start: number, end: number) => boolean

/** Texts of a checkpoint's named tokens: `bos_token`, `eos_token`, `pad_token`, `context_image_token`, … */
export type TokenNames = Readonly<Record<string, string>>

const largestId = 2 ** 31 - 1 // ids are int32 in every model
const tokenId = t.refinement(
  t.number,
  (id) => Number.isInteger(id) && id >= 0 && id <= largestId,
  `a whole number from 0 to ${largestId}`
)

/** Codec of an added token in JSON. */
export const AddedTokenJson = t.intersection([
  t.type({ id: tokenId, content: t.string }),
  t.partial({ special: t.boolean, lstrip: t.boolean, rstrip: t.boolean, single_word: t.boolean, normalized: t.boolean })
])
export type AddedTokenJson = t.TypeOf<typeof AddedTokenJson>

/** An added token with defaults for the fields that the file omits. */
export const toAddedToken = ({ id, content, special, lstrip, rstrip, single_word }: AddedTokenJson): AddedToken => ({
  id,
  content,
  special: special ?? false,
  lstrip: lstrip ?? false,
  rstrip: rstrip ?? false,
  singleWord: single_word ?? false
})

/** The tokens of tokenizer.json, then those that only tokenizer_config.json lists (`added_tokens_decoder`). */
export const withDecoderTokens = (
  config: Readonly<Record<string, unknown>>,
  known: readonly AddedTokenJson[]
): readonly AddedTokenJson[] => {
  const decoder = config.added_tokens_decoder
  if (!t.UnknownRecord.is(decoder)) return known
  const listed = Object.entries(decoder).flatMap(([id, token]) => {
    const whole = t.UnknownRecord.is(token) ? { ...token, id: Number(id) } : token
    return AddedTokenJson.is(whole) ? [whole] : []
  })
  return [...known, ...listed.filter(({ content }) => !known.some((token) => token.content === content))]
}

const Named = t.union([t.string, t.type({ content: t.string })])
const contentOf = (token: t.TypeOf<typeof Named>): string => (typeof token === 'string' ? token : token.content)

/** Named tokens of a checkpoint: the `*_token` fields of tokenizer_config.json and of its `extra_special_tokens`. */
export const tokenNames = (config: Readonly<Record<string, unknown>>): TokenNames => {
  const records = [config.model_specific_special_tokens, config.extra_special_tokens, config].filter(t.UnknownRecord.is)
  const entries = records.flatMap((record) => Object.entries(record))
  return Object.fromEntries(
    entries.flatMap(([name, value]) => (name.endsWith('_token') && Named.is(value) ? [[name, contentOf(value)] as const] : []))
  )
}

const escapeRegExp = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
const isWord = (character: string | undefined): boolean => character !== undefined && /[\p{L}\p{N}_]/u.test(character)

/** Splits a text on added tokens: the leftmost match first, and of those the longest that `accepts` returns true for. */
export const addedTokenSplitter = (tokens: readonly AddedToken[]) => {
  const byContent = new Map(tokens.map((token) => [token.content, token]))
  const longestFirst = [...byContent.keys()].filter((c) => c !== '').sort((a, b) => b.length - a.length)
  const pattern = longestFirst.length > 0 ? longestFirst.map(escapeRegExp).join('|') : '(?!)'
  return (text: string, accepts: AcceptToken = () => true): readonly TextOrToken[] => {
    const found: TextOrToken[] = []
    const matcher = new RegExp(pattern, 'g')
    let consumed = 0
    for (let match = matcher.exec(text); match; match = matcher.exec(text)) {
      const token = byContent.get(match[0])!
      const [start, end] = [match.index, match.index + match[0].length]
      const inWord = token.singleWord && (isWord(text[start - 1]) || isWord(text[end]))
      if (inWord || !accepts(token, start, end)) {
        matcher.lastIndex = start + 1
        continue
      }
      const before = text.slice(consumed, start)
      const after = token.rstrip ? text.slice(end).length - text.slice(end).trimStart().length : 0
      found.push(token.lstrip ? before.trimEnd() : before, token)
      matcher.lastIndex = consumed = end + after
    }
    return [...found, text.slice(consumed)].filter((piece) => piece !== '')
  }
}
