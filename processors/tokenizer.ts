import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers'
import * as E from 'fp-ts/lib/Either.js'
import * as t from 'io-ts'
import type { Faults } from '../lib/fault.js'
import { collect, decode, leftFault } from './collect.js'

/** A token of tokenizer.json's `added_tokens`: matched in text as a whole. */
export interface AddedToken {
  readonly id: number
  readonly content: string
  readonly special: boolean
  readonly lstrip: boolean
  readonly rstrip: boolean
  readonly singleWord: boolean
}

/** `times` ids that are no text. */
export interface TokenRun {
  readonly id: number
  readonly times: number
}

/** A text cut at its added tokens: strings are ordinary text. */
export type Piece = string | TokenRun

/** A text with added tokens found in it. */
export type Found = string | AddedToken

/** Decides whether the token that stands at `[start, end)` of the text is meant as a token. */
export type Accepts = (token: AddedToken, start: number, end: number) => boolean

/** Named tokens of the checkpoint: `bos_token`, `eos_token`, `pad_token`, `context_image_token`, … to their text. */
export type TokenNames = Readonly<Record<string, string>>

export interface Tokenizer {
  /** One more than the largest id. */
  readonly vocabSize: number
  readonly names: TokenNames
  readonly addedTokens: readonly AddedToken[]
  /** Ids as Transformers gives them: added tokens in the text are recognised, and a begin token is set where the files say so. */
  readonly encode: (text: string, options?: { readonly addSpecialTokens?: boolean }) => number[]
  /** Cuts a text at those added tokens that `accepts` lets through; the rest stays text, whatever it looks like. */
  readonly split: (text: string, accepts?: Accepts) => readonly Found[]
  /** Ids of pieces; strings next to each other are one text. Ordinary text never yields a special id. */
  readonly encodePieces: (pieces: readonly Piece[], options?: { readonly addSpecialTokens?: boolean }) => number[]
  /** Text of ids; ids that the vocabulary lacks say nothing. `skipSpecialTokens` is false unless given. */
  readonly decode: (ids: readonly number[], options?: { readonly skipSpecialTokens?: boolean }) => string
  readonly idOf: (token: string) => number | undefined
  readonly tokenOf: (id: number) => string | undefined
  readonly isSpecial: (id: number) => boolean
}

const Token = t.intersection([
  t.type({ id: t.number, content: t.string }),
  t.partial({ special: t.boolean, lstrip: t.boolean, rstrip: t.boolean, single_word: t.boolean, normalized: t.boolean })
])
type Token = t.TypeOf<typeof Token>

const TokenizerJson = t.intersection([
  t.type({ model: t.UnknownRecord }),
  t.partial({
    added_tokens: t.array(Token),
    normalizer: t.unknown,
    pre_tokenizer: t.unknown,
    post_processor: t.unknown,
    decoder: t.unknown
  })
])

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

const mergeText = (pieces: readonly Piece[]): readonly Piece[] =>
  pieces.reduce<Piece[]>((merged, piece) => {
    const last = merged.at(-1)
    if (typeof piece === 'string' && typeof last === 'string') merged[merged.length - 1] = last + piece
    else merged.push(piece)
    return merged
  }, [])

/** Ids that the tokenizer sets before and after a text. Source: `update_post_processor` (transformers 5.23). */
const affixes = (
  hf: HuggingFaceTokenizer,
  config: Readonly<Record<string, unknown>>,
  names: TokenNames
): [number[], number[]] => {
  const id = (token: string | undefined): number[] =>
    [token === undefined ? undefined : hf.token_to_id(token)].filter((i) => i !== undefined)
  if ('add_bos_token' in config || 'add_eos_token' in config)
    return [config.add_bos_token ? id(names.bos_token) : [], config.add_eos_token ? id(names.eos_token) : []]
  const text = '\u0000'
  const tokens = hf.post_processor?._call([text], null, true).tokens ?? [text]
  const at = tokens.indexOf(text)
  return [tokens.slice(0, at).flatMap(id), tokens.slice(at + 1).flatMap(id)]
}

const build = (json: t.TypeOf<typeof TokenizerJson>, config: Readonly<Record<string, unknown>>): Tokenizer => {
  const hf = new HuggingFaceTokenizer(json, config)
  const model = hf.model!
  const names = tokenNames(config)
  const added = (json.added_tokens ?? []).map(
    ({ id, content, special, lstrip, rstrip, single_word }: Token): AddedToken => ({
      id,
      content,
      special: special ?? false,
      lstrip: lstrip ?? false,
      rstrip: rstrip ?? false,
      singleWord: single_word ?? false
    })
  )
  const specials = new Set(added.filter((token) => token.special).map((token) => token.id))
  const [prefix, suffix] = affixes(hf, config, names)
  const split = splitter(added)
  const isBpe = json.model.type === 'BPE' || json.model.merges !== undefined

  const idsOf = (tokens: readonly string[]): number[] =>
    tokens.flatMap((token) => {
      const id = model.tokens_to_ids.get(token) ?? model.unk_token_id
      if (id === undefined) return []
      // a text that is a special token's in one word of the vocabulary is spelt out; bytes and the unknown stand for text
      const spelt = specials.has(id) && id !== model.unk_token_id && [...token].length > 1 && !/^<0x[\dA-F]{2}>$/.test(token)
      return spelt ? [...token].flatMap((c) => idsOf(model._call([c]))) : [id]
    })
  const ordinary = (text: string, section: number): number[] => {
    const normal = hf.normalizer ? hf.normalizer._call(text) : text
    if (normal === '') return []
    return idsOf(model._call(hf.pre_tokenizer ? hf.pre_tokenizer._call(normal, { section_index: section }) : [normal]))
  }
  const encodePieces: Tokenizer['encodePieces'] = (pieces, { addSpecialTokens = true } = {}) => {
    const ids = mergeText(pieces).map((piece, section) =>
      typeof piece === 'string' ? ordinary(piece, section) : Array<number>(piece.times).fill(piece.id)
    )
    return addSpecialTokens ? [...prefix, ...ids.flat(), ...suffix] : ids.flat()
  }
  return {
    vocabSize: model.vocab.length,
    names,
    addedTokens: added,
    split,
    encodePieces,
    encode: (text, options) =>
      encodePieces(
        split(text).map((piece) => (typeof piece === 'string' ? piece : { id: piece.id, times: 1 })),
        options
      ),
    decode: (ids, { skipSpecialTokens = false } = {}) => {
      const kept = ids.filter((id) => model.vocab[id] !== undefined && !(skipSpecialTokens && specials.has(id)))
      // cleaning up spaces would corrupt byte-level text, so Transformers leaves BPE alone
      const cleanUp = !isBpe && config.clean_up_tokenization_spaces === true
      return kept.length === 0 ? '' : hf.decode(kept, { skip_special_tokens: false, clean_up_tokenization_spaces: cleanUp })
    },
    idOf: (token) => model.tokens_to_ids.get(token),
    tokenOf: (id) => model.vocab[id],
    isSpecial: (id) => specials.has(id)
  }
}

// tokens that older folders keep beside tokenizer.json
const moreTokens = (config: Readonly<Record<string, unknown>>, known: readonly Token[]): readonly Token[] => {
  const decoder = config.added_tokens_decoder
  if (!t.UnknownRecord.is(decoder)) return known
  const listed = Object.entries(decoder).flatMap(([id, token]) => {
    const whole = t.UnknownRecord.is(token) ? { ...token, id: Number(id) } : token
    return Token.is(whole) ? [whole] : []
  })
  return [...known, ...listed.filter(({ content }) => !known.some((token) => token.content === content))]
}

/**
 * A tokenizer from the parsed tokenizer.json and tokenizer_config.json.
 *
 * Source: @huggingface/tokenizers, and `PreTrainedTokenizerFast` (transformers 5.23) around it.
 */
export const buildTokenizer = (json: unknown, config: unknown, dir: string): E.Either<Faults, Tokenizer> => {
  const decoded = collect<unknown>([
    decode(TokenizerJson, json, `${dir}/tokenizer.json`),
    decode(t.UnknownRecord, config, `${dir}/tokenizer_config.json`)
  ])
  if (E.isLeft(decoded)) return decoded
  const [tokenizer, settings] = decoded.right as [t.TypeOf<typeof TokenizerJson>, Record<string, unknown>]
  const whole = {
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: null,
    ...tokenizer,
    added_tokens: [...moreTokens(settings, tokenizer.added_tokens ?? [])]
  }
  try {
    return E.right(build(whole, settings))
  } catch (error) {
    return leftFault('Tokenizer', `${dir}/tokenizer.json: not a tokenizer that can be built: ${(error as Error).message}.`)
  }
}
