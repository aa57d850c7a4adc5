import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers'
import { sequenceS } from 'fp-ts/lib/Apply.js'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as t from 'io-ts'
import { errorText, type Issues, issue, validation, whenValid } from '../../lib/error.js'
import { isRecord } from '../../lib/plain-object.js'
import { decode } from '../config/decode-json.js'
import {
  type AcceptToken,
  type AddedToken,
  AddedTokenJson,
  addedTokenSplitter,
  type TextOrToken,
  type TokenNames,
  toAddedToken,
  tokenNames,
  withDecoderTokens
} from './added-tokens.js'
import { hasUnknownRegex, type RunPart, withDeadline, withoutDeadline } from './regex-deadline.js'
import { charsmapNormalizer } from './sentencepiece/charsmap.js'
import { type UnigramJson, unigramEncoder } from './sentencepiece/unigram.js'
import { runSteps, runStepsAsync, type Steps, tokenSteps } from './tokenize-steps.js'
import { tokenizerFieldIssues } from './tokenizer-fields.js'
import { withClassParts } from './vocabulary.js'

/** The token `id`, `count` times in a row. */
export interface RepeatedToken {
  readonly id: number
  readonly count: number
}

/** A piece of a prompt: plain text, or repeated tokens. */
export type Piece = string | RepeatedToken

export interface EncodeOptions {
  /** Whether to add begin and end tokens where the files say so. Default: true. */
  readonly addSpecialTokens?: boolean
}

export interface Tokenizer {
  /** Largest id plus one. */
  readonly vocabSize: number
  readonly names: TokenNames
  readonly addedTokens: readonly AddedToken[]
  /** Encodes text as Transformers does: added tokens in the text are recognised, and begin and end tokens are added where the files say so. */
  readonly encode: (text: string, options?: EncodeOptions) => number[]
  /** Splits a text on the added tokens that `accepts` returns true for; everything else stays plain text. */
  readonly split: (text: string, accepts?: AcceptToken) => readonly TextOrToken[]
  /** Encodes pieces; adjacent strings are joined. Plain text never yields a special token's id. */
  readonly encodePieces: (pieces: readonly Piece[], options?: EncodeOptions) => number[]
  /** Same as `encodePieces`, but lets other work of the process run every 10 ms. */
  readonly encodePiecesAsync: (pieces: readonly Piece[], options?: EncodeOptions) => Promise<number[]>
  /** Decodes ids to text; ids outside the vocabulary are skipped. Default of `skipSpecialTokens`: false. */
  readonly decode: (ids: readonly number[], options?: { readonly skipSpecialTokens?: boolean }) => string
  readonly idOf: (token: string) => number | undefined
  readonly tokenOf: (id: number) => string | undefined
  readonly isSpecial: (id: number) => boolean
  /** Side of the padding of a batch, where the files name one. */
  readonly paddingSide: 'left' | 'right' | undefined
}

const TokenizerJson = t.intersection([
  t.type({ model: t.UnknownRecord }),
  t.partial({
    added_tokens: t.array(AddedTokenJson),
    normalizer: t.unknown,
    pre_tokenizer: t.unknown,
    post_processor: t.unknown,
    decoder: t.unknown,
    padding: t.unknown
  })
])

type Settings = Readonly<Record<string, unknown>>
type Model = NonNullable<HuggingFaceTokenizer['model']>
type Decoder = NonNullable<HuggingFaceTokenizer['decoder']>
type Normalizer = NonNullable<HuggingFaceTokenizer['normalizer']>

/** Ids of vocabulary entries. Where plain text equals a special token, the text is encoded character by character instead. */
const wordIds = (model: Model, isSpecial: (id: number) => boolean, words: readonly string[]): number[] =>
  words.flatMap((word) => {
    const id = model.tokens_to_ids.get(word) ?? model.unk_token_id
    if (id === undefined) return []
    const special = isSpecial(id) && id !== model.unk_token_id && !/^<0x[\dA-F]{2}>$/.test(word)
    return special && [...word].length > 1 ? [...word].flatMap((c) => wordIds(model, isSpecial, model._call([c]))) : [id]
  })

const mergeText = (pieces: readonly Piece[]): readonly Piece[] =>
  pieces.reduce<Piece[]>((merged, piece) => {
    const last = merged.at(-1)
    if (typeof piece === 'string' && typeof last === 'string') merged[merged.length - 1] = last + piece
    else merged.push(piece)
    return merged
  }, [])

/** Ids that the tokenizer adds before and after a text. Source: `update_post_processor` (transformers 5.24). */
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

/**
 * Corrects two normalizers of @huggingface/tokenizers: compiled normalizations, which it approximates, and prefixes, which it puts
 * before an empty text too.
 */
const correctNormalizer = (normalizer: Normalizer): void => {
  const { normalizers, config } = normalizer as {
    readonly normalizers?: readonly Normalizer[]
    readonly config?: { readonly precompiled_charsmap?: unknown; readonly prepend?: unknown }
  }
  normalizers?.forEach(correctNormalizer)
  const { precompiled_charsmap: compiled, prepend } = config ?? {}
  if (typeof compiled === 'string') normalizer.normalize = charsmapNormalizer(Buffer.from(compiled, 'base64'))
  if (typeof prepend === 'string') normalizer.normalize = (text: string) => (text === '' ? '' : prepend + text)
}

/** Decodes bytes to U+FEFF where they are; @huggingface/tokenizers drops these. */
const keepByteOrderMarks = (decoder: Decoder): void => {
  const { decoders, text_decoder } = decoder as { decoders?: readonly Decoder[]; text_decoder?: object }
  decoders?.forEach(keepByteOrderMarks)
  if (text_decoder) Object.assign(decoder, { text_decoder: new TextDecoder('utf-8', { ignoreBOM: true }) })
}

/** The side in tokenizer_config.json, else that in tokenizer.json. Source: `TokenizersBackend.__init__` (transformers 5.24). */
const paddingSideOf = (padding: unknown, { padding_side: configured }: Settings): Tokenizer['paddingSide'] => {
  const direction = isRecord(padding) && typeof padding.direction === 'string' ? padding.direction.toLowerCase() : undefined
  return (['left', 'right'] as const).find((side) => side === (configured ?? direction))
}

const build = (json: t.TypeOf<typeof TokenizerJson>, config: Settings): Tokenizer => {
  const hf = new HuggingFaceTokenizer(json, config)
  const model = hf.model!
  if (hf.normalizer) correctNormalizer(hf.normalizer)
  if (hf.decoder) keepByteOrderMarks(hf.decoder)
  const names = tokenNames(config)
  const addedTokens = (json.added_tokens ?? []).map(toAddedToken)
  const specials = new Set(addedTokens.filter(({ special }) => special).map(({ id }) => id))
  const isSpecial = (id: number): boolean => specials.has(id)
  const special = new Set(addedTokens.filter((token) => token.special).map(({ content }) => content))
  const unigram = json.model.type === 'Unigram' ? unigramEncoder(json.model as unknown as UnigramJson, special) : undefined
  const [run, runDecoder] = [[json.normalizer, json.pre_tokenizer], json.decoder].map((part) =>
    hasUnknownRegex(part) ? withDeadline : withoutDeadline
  ) as [RunPart, RunPart]
  const [prefix, suffix] = affixes(hf, config, names)
  const split = addedTokenSplitter(addedTokens)
  // Transformers does not clean up spaces for BPE, where it would corrupt byte-level text
  const cleanUp = json.model.merges === undefined && config.clean_up_tokenization_spaces === true
  function* encodeSteps(pieces: readonly Piece[], { addSpecialTokens = true }: EncodeOptions = {}): Steps<number[]> {
    const ids: number[][] = []
    for (const [section, piece] of mergeText(pieces).entries()) {
      if (typeof piece === 'string') ids.push(wordIds(model, isSpecial, yield* tokenSteps(hf, piece, section, unigram, run)))
      else ids.push(Array<number>(piece.count).fill(piece.id))
    }
    return (addSpecialTokens ? [prefix, ...ids, suffix] : ids).flat()
  }
  const encodePieces: Tokenizer['encodePieces'] = (pieces, options) => runSteps(encodeSteps(pieces, options))
  const toPiece = (piece: TextOrToken): Piece => (typeof piece === 'string' ? piece : { id: piece.id, count: 1 })
  return {
    vocabSize: model.vocab.length,
    names,
    addedTokens,
    split,
    encodePieces,
    encodePiecesAsync: (pieces, options) => runStepsAsync(encodeSteps(pieces, options)),
    encode: (text, options) => encodePieces(split(text).map(toPiece), options),
    decode: (ids, { skipSpecialTokens = false } = {}) => {
      const known = ids.filter((id) => model.vocab[id] !== undefined && !(skipSpecialTokens && isSpecial(id)))
      if (known.length === 0) return ''
      return runDecoder(() => hf.decode(known, { skip_special_tokens: false, clean_up_tokenization_spaces: cleanUp }))
    },
    idOf: (token) => model.tokens_to_ids.get(token),
    tokenOf: (id) => model.vocab[id],
    isSpecial,
    paddingSide: paddingSideOf(json.padding, config)
  }
}

/** A text of letters, digits, punctuation, spaces, a line break and letters of other scripts, which every tokenizer can encode. */
const SAMPLE_TEXT = 'Hello, 42 wörld!\n 你好'

/** The tokenizer, after it has encoded and decoded a short text. Throws where the tokenizer cannot. */
const tried = (tokenizer: Tokenizer): Tokenizer => {
  tokenizer.decode(tokenizer.encode(SAMPLE_TEXT))
  return tokenizer
}

/** Message of a tokenizer that cannot be built; a `TypeError` says only how @huggingface/tokenizers is written. */
const reasonOf = (error: unknown): string =>
  error instanceof TypeError ? 'a field has a value that its type does not take' : errorText(error)

/**
 * Builds a tokenizer from the parsed tokenizer.json and tokenizer_config.json.
 *
 * Source: @huggingface/tokenizers, and `PreTrainedTokenizerFast` (transformers 5.24) around it.
 */
export const buildTokenizer = (json: unknown, config: unknown, dir: string): E.Either<Issues, Tokenizer> =>
  pipe(
    sequenceS(validation)({
      tokenizer: decode(TokenizerJson, json, `${dir}/tokenizer.json`),
      settings: decode(t.UnknownRecord, config, `${dir}/tokenizer_config.json`)
    }),
    E.chain((parts) => whenValid(tokenizerFieldIssues(parts.tokenizer, `${dir}/tokenizer.json`), () => parts)),
    E.chain(({ tokenizer, settings }) => {
      const defaults = { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null }
      const added_tokens = [...withDecoderTokens(settings, tokenizer.added_tokens ?? [])]
      return E.tryCatch(
        () => tried(build({ ...defaults, ...withClassParts(tokenizer, settings), added_tokens }, settings)),
        (error): Issues => [issue('Tokenizer', `${dir}/tokenizer.json: the tokenizer cannot be built: ${reasonOf(error)}.`)]
      )
    })
  )
