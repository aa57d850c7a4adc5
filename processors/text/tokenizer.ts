import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers'
import * as E from 'fp-ts/lib/Either.js'
import * as t from 'io-ts'
import type { Issues } from '../../lib/error.js'
import { collect, decode, invalid } from '../collect.js'
import {
  type Accepts,
  type AddedToken,
  type Found,
  splitter,
  Token,
  type TokenNames,
  toAddedToken,
  tokenNames,
  withListed
} from './added-tokens.js'

/** `times` ids that are no text. */
export interface TokenRun {
  readonly id: number
  readonly times: number
}

/** A text cut at its added tokens: strings are ordinary text. */
export type Piece = string | TokenRun

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

type Settings = Readonly<Record<string, unknown>>
type Model = NonNullable<HuggingFaceTokenizer['model']>

/** Ids of vocabulary words. A text that is a special token's in one word is spelt out; bytes and the unknown stand for text. */
const idsOf = (model: Model, isSpecial: (id: number) => boolean, words: readonly string[]): number[] =>
  words.flatMap((word) => {
    const id = model.tokens_to_ids.get(word) ?? model.unk_token_id
    if (id === undefined) return []
    const special = isSpecial(id) && id !== model.unk_token_id && !/^<0x[\dA-F]{2}>$/.test(word)
    return special && [...word].length > 1 ? [...word].flatMap((c) => idsOf(model, isSpecial, model._call([c]))) : [id]
  })

/** Words of a text in which no token is recognised; `section` is its place among the pieces, for some tokenizers mark the first. */
const wordsOf = ({ normalizer, pre_tokenizer, model }: HuggingFaceTokenizer, text: string, section: number): string[] => {
  const normal = normalizer ? normalizer._call(text) : text
  if (normal === '') return []
  return model!._call(pre_tokenizer ? pre_tokenizer._call(normal, { section_index: section }) : [normal])
}

const mergeText = (pieces: readonly Piece[]): readonly Piece[] =>
  pieces.reduce<Piece[]>((merged, piece) => {
    const last = merged.at(-1)
    if (typeof piece === 'string' && typeof last === 'string') merged[merged.length - 1] = last + piece
    else merged.push(piece)
    return merged
  }, [])

/** Ids that the tokenizer sets before and after a text. Source: `update_post_processor` (transformers 5.23). */
const affixes = (hf: HuggingFaceTokenizer, config: Settings, names: TokenNames): [number[], number[]] => {
  const id = (token: string | undefined): number[] =>
    [token === undefined ? undefined : hf.token_to_id(token)].filter((i) => i !== undefined)
  if ('add_bos_token' in config || 'add_eos_token' in config)
    return [config.add_bos_token ? id(names.bos_token) : [], config.add_eos_token ? id(names.eos_token) : []]
  const text = '\u0000'
  const tokens = hf.post_processor?._call([text], null, true).tokens ?? [text]
  const at = tokens.indexOf(text)
  return [tokens.slice(0, at).flatMap(id), tokens.slice(at + 1).flatMap(id)]
}

const build = (json: t.TypeOf<typeof TokenizerJson>, config: Settings): Tokenizer => {
  const hf = new HuggingFaceTokenizer(json, config)
  const model = hf.model!
  const names = tokenNames(config)
  const addedTokens = (json.added_tokens ?? []).map(toAddedToken)
  const specials = new Set(addedTokens.filter(({ special }) => special).map(({ id }) => id))
  const isSpecial = (id: number): boolean => specials.has(id)
  const [prefix, suffix] = affixes(hf, config, names)
  const split = splitter(addedTokens)
  // cleaning up spaces would corrupt byte-level text, so Transformers leaves BPE alone
  const cleanUp = json.model.merges === undefined && config.clean_up_tokenization_spaces === true
  const encodePieces: Tokenizer['encodePieces'] = (pieces, { addSpecialTokens = true } = {}) => {
    const ids = mergeText(pieces).flatMap((piece, section) =>
      typeof piece === 'string' ? idsOf(model, isSpecial, wordsOf(hf, piece, section)) : Array<number>(piece.times).fill(piece.id)
    )
    return addSpecialTokens ? [...prefix, ...ids, ...suffix] : ids
  }
  const run = (piece: Found): Piece => (typeof piece === 'string' ? piece : { id: piece.id, times: 1 })
  return {
    vocabSize: model.vocab.length,
    names,
    addedTokens,
    split,
    encodePieces,
    encode: (text, options) => encodePieces(split(text).map(run), options),
    decode: (ids, { skipSpecialTokens = false } = {}) => {
      const kept = ids.filter((id) => model.vocab[id] !== undefined && !(skipSpecialTokens && isSpecial(id)))
      return kept.length === 0 ? '' : hf.decode(kept, { skip_special_tokens: false, clean_up_tokenization_spaces: cleanUp })
    },
    idOf: (token) => model.tokens_to_ids.get(token),
    tokenOf: (id) => model.vocab[id],
    isSpecial
  }
}

/**
 * A tokenizer from the parsed tokenizer.json and tokenizer_config.json.
 *
 * Source: @huggingface/tokenizers, and `PreTrainedTokenizerFast` (transformers 5.23) around it.
 */
export const buildTokenizer = (json: unknown, config: unknown, dir: string): E.Either<Issues, Tokenizer> => {
  const decoded = collect<unknown>([
    decode(TokenizerJson, json, `${dir}/tokenizer.json`),
    decode(t.UnknownRecord, config, `${dir}/tokenizer_config.json`)
  ])
  if (E.isLeft(decoded)) return decoded
  const [tokenizer, settings] = decoded.right as [t.TypeOf<typeof TokenizerJson>, Settings]
  const whole = {
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: null,
    ...tokenizer,
    added_tokens: [...withListed(settings, tokenizer.added_tokens ?? [])]
  }
  try {
    return E.right(build(whole, settings))
  } catch (error) {
    return invalid('Tokenizer', `${dir}/tokenizer.json: not a tokenizer that can be built: ${(error as Error).message}.`)
  }
}
