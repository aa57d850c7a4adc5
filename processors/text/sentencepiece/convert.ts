import * as t from 'io-ts'
import { nameText } from '../../../lib/error.js'
import { type AddedTokenJson, tokenNames } from '../added-tokens.js'
import { space, spaceDecoder } from '../vocabulary.js'
import { pieceTypes, type SentencePieceModel } from './model-proto.js'

/**
 * Merges of a BPE vocabulary: each piece from every two pieces that it is the concatenation of, best score first.
 * Source: `generate_merges` (transformers 5.24).
 */
const mergesOf = ({ pieces }: SentencePieceModel): readonly (readonly [string, string])[] => {
  const ids = new Map(pieces.flatMap(({ piece, type }, id) => (type === pieceTypes.normal || type === pieceTypes.userDefined ? [[piece, id] as const] : []))) // biome-ignore format: one line
  return [...ids]
    .sort(([, a], [, b]) => pieces[b]!.score - pieces[a]!.score || a - b)
    .flatMap(([piece]) => {
      const splits: (readonly [string, string])[] = []
      for (let i = 1; i < piece.length; i++) {
        const [left, right] = [piece.slice(0, i), piece.slice(i)]
        if (ids.has(left) && ids.has(right)) splits.push([left, right])
      }
      return splits // the shortest left part first
    })
}

/** Files beside tokenizer.model that name further tokens. */
export interface TokenFiles {
  /** tokenizer_config.json */
  readonly config: Readonly<Record<string, unknown>>
  /** added_tokens.json: text to id. */
  readonly addedTokens: unknown
  /** special_tokens_map.json */
  readonly specialTokensMap: unknown
}

const textOf = (token: unknown): readonly string[] => {
  if (typeof token === 'string') return [token]
  if (Array.isArray(token)) return token.flatMap(textOf)
  return t.UnknownRecord.is(token) && typeof token.content === 'string' ? [token.content] : []
}

/** Texts of tokens that the files call special: named ones and `additional_special_tokens`. */
const specialTexts = ({ config, specialTokensMap }: TokenFiles): ReadonlySet<string> => {
  const map = t.UnknownRecord.is(specialTokensMap) ? specialTokensMap : {}
  const listed = [...Object.values(map), config.additional_special_tokens, Object.values(tokenNames(config))]
  return new Set(listed.flatMap(textOf))
}

/**
 * The added tokens, each once: control and user-defined pieces and the unknown token; then the tokens of added_tokens.json.
 * `buildTokenizer` adds those that tokenizer_config.json alone has. Source: `SpmConverter.tokenizer` (transformers 5.24).
 */
const addedTokensOf = ({ pieces }: SentencePieceModel, files: TokenFiles): readonly AddedTokenJson[] => {
  const special = specialTexts(files)
  const decoder = t.UnknownRecord.is(files.config.added_tokens_decoder) ? files.config.added_tokens_decoder : {}
  const settingsOf = (id: number): object => {
    const listed = decoder[id]
    return t.UnknownRecord.is(listed) ? listed : {}
  }
  const specialTypes = { [pieceTypes.control]: true, [pieceTypes.unknown]: true, [pieceTypes.userDefined]: false } as Record<
    number,
    boolean
  >
  const token = (id: number, content: string, isSpecial: boolean): AddedTokenJson => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: isSpecial || special.has(content),
    ...settingsOf(id)
  })
  const ofModel = pieces.flatMap(({ piece, type }, id) => (type in specialTypes ? [token(id, piece, specialTypes[type]!)] : []))
  const extra = Object.entries(t.record(t.string, t.number).is(files.addedTokens) ? files.addedTokens : {})
    .map(([content, id]) => token(id, content, false))
    .sort((a, b) => a.id - b.id)
  const known = new Set(ofModel.map(({ content }) => content))
  return [...ofModel, ...extra.filter(({ content }) => !known.has(content))]
}

/** Steps that make SentencePiece's normalization of a text; a space becomes `▁`. */
const normalizerOf = (model: SentencePieceModel, isLegacy: boolean): unknown => {
  const { charsmap, removeExtraWhitespaces, addDummyPrefix } = model
  const normalizers = [
    ...(charsmap.length > 0 ? [{ type: 'Precompiled', precompiled_charsmap: Buffer.from(charsmap).toString('base64') }] : []),
    ...(removeExtraWhitespaces
      ? [
          { type: 'Replace', pattern: { Regex: '(?<![\\s\\S]) +|[ ▁]+(?![\\s\\S])' }, content: '' },
          { type: 'Replace', pattern: { Regex: ' {2,}' }, content: ' ' }
        ]
      : []),
    ...(addDummyPrefix && isLegacy ? [{ type: 'Prepend', prepend: space }] : []),
    { type: 'Replace', pattern: { String: ' ' }, content: space }
  ]
  return { type: 'Sequence', normalizers }
}

const modelOf = (model: SentencePieceModel): unknown => {
  const { pieces, byteFallback, unkId, unkPiece } = model
  if (model.modelType === 'unigram')
    return {
      type: 'Unigram',
      unk_id: unkId,
      vocab: pieces.map(({ piece, score }) => [piece, score]),
      byte_fallback: byteFallback
    }
  return {
    type: 'BPE',
    dropout: null,
    unk_token: unkPiece,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: true,
    byte_fallback: byteFallback,
    ignore_merges: false,
    vocab: Object.fromEntries(pieces.map(({ piece }, id) => [piece, id])),
    merges: mergesOf(model)
  }
}

/** Tokenizer classes that begin every text with the begin token unless `add_bos_token` is false. */
const withBeginToken = /^(Llama|InternLM2|CodeLlama)Tokenizer(Fast)?$/

/** The begin token before a text, for classes that add one by default. */
const postProcessorOf = ({ pieces }: SentencePieceModel, { config }: TokenFiles): unknown => {
  const begin = tokenNames(config).bos_token ?? '<s>'
  const id = pieces.findIndex(({ piece }) => piece === begin)
  if ('add_bos_token' in config || !withBeginToken.test(nameText(config.tokenizer_class)) || id < 0) return null
  const [special, sequence] = [{ SpecialToken: { id: begin, type_id: 0 } }, (name: string, type_id: number) => ({ Sequence: { id: name, type_id } })] // biome-ignore format: one line
  return {
    type: 'TemplateProcessing',
    single: [special, sequence('A', 0)],
    pair: [special, sequence('A', 0), special, sequence('B', 1)],
    special_tokens: { [begin]: { id: begin, ids: [id], tokens: [begin] } }
  }
}

/**
 * The tokenizer.json equivalent of a SentencePiece model. `legacy: false` in tokenizer_config.json puts the space before a text only
 * at the begin of a prompt, not after every added token.
 * Source: `SpmConverter` and `LlamaConverter` (transformers 5.24), `InternLM2Converter` (OpenGVLab/InternVL2-2B).
 */
export const tokenizerFromSentencePiece = (model: SentencePieceModel, files: TokenFiles): Readonly<Record<string, unknown>> => {
  const isLegacy = files.config.legacy !== false
  const prefixed = { type: 'Metaspace', replacement: space, prepend_scheme: 'first', split: false }
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: addedTokensOf(model, files),
    normalizer: normalizerOf(model, isLegacy),
    pre_tokenizer: model.addDummyPrefix && !isLegacy ? prefixed : null,
    post_processor: postProcessorOf(model, files),
    decoder: spaceDecoder(model.addDummyPrefix),
    model: modelOf(model)
  }
}
