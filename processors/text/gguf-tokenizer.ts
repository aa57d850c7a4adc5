import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import { type Issues, invalid } from '../../lib/error.js'
import { tokenizerFromSentencePiece } from './sentencepiece/convert.js'
import { pieceTypes } from './sentencepiece/model-proto.js'
import { byteLevelTokenizer, isSplittingRules, type SplittingRules } from './vocabulary.js'

/** The metadata of a GGUF file. */
export type GgufMetadata = ReadonlyMap<string, unknown>

/** Tokenizer files of a checkpoint folder as JSON. */
export interface TokenizerFiles {
  readonly tokenizer: unknown
  readonly config: Readonly<Record<string, unknown>>
}

const at = (metadata: GgufMetadata, key: string): unknown => metadata.get(`tokenizer.ggml.${key}`)
const list = <A>(metadata: GgufMetadata, key: string): readonly A[] => (at(metadata, key) as readonly A[] | undefined) ?? []

/** tokenizer_config.json: the named tokens, and whether a begin token stands before a text. */
const configOf = (metadata: GgufMetadata, tokens: readonly string[]): Readonly<Record<string, unknown>> => {
  const names = {
    bos_token: 'bos_token_id',
    eos_token: 'eos_token_id',
    pad_token: 'padding_token_id',
    unk_token: 'unknown_token_id'
  }
  const named = Object.entries(names).flatMap(([name, key]) => {
    const token = tokens[Number(at(metadata, key))]
    return token === undefined ? [] : [[name, token]]
  })
  const [begin, end] = [at(metadata, 'add_bos_token'), at(metadata, 'add_eos_token')]
  return {
    tokenizer_class: 'PreTrainedTokenizerFast',
    ...Object.fromEntries(named),
    add_bos_token: begin ?? at(metadata, 'model') === 'llama',
    add_eos_token: end ?? false
  }
}

const addedToken = (id: number, content: string, special: boolean) => ({
  id,
  content,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special
})

/** A byte-level BPE. */
const byteLevel = (
  metadata: GgufMetadata,
  tokens: readonly string[],
  types: readonly number[],
  rules: SplittingRules,
  path: string
) => {
  const vocab = Object.fromEntries(tokens.flatMap((token, id) => (types[id] === pieceTypes.normal ? [[token, id]] : [])))
  const added = tokens.flatMap((token, id) =>
    types[id] === pieceTypes.control || types[id] === pieceTypes.userDefined
      ? [addedToken(id, token, types[id] === pieceTypes.control)]
      : []
  )
  return pipe(
    byteLevelTokenizer(vocab, list<string>(metadata, 'merges').join('\n'), rules, path),
    E.map((tokenizer) => ({ ...(tokenizer as object), added_tokens: added }))
  )
}

/** A SentencePiece model with byte fallback. */
const sentencePiece = (
  metadata: GgufMetadata,
  tokens: readonly string[],
  types: readonly number[],
  config: Readonly<Record<string, unknown>>
) => {
  const scores = list<number>(metadata, 'scores')
  const unkId = Number(at(metadata, 'unknown_token_id') ?? 0)
  const model = {
    pieces: tokens.map((piece, id) => ({ piece, score: scores[id] ?? 0, type: types[id] ?? pieceTypes.normal })),
    modelType: 'bpe' as const,
    byteFallback: tokens.includes('<0x00>'),
    unkId,
    unkPiece: tokens[unkId] ?? '<unk>',
    charsmap: new Uint8Array(0),
    addDummyPrefix: at(metadata, 'add_space_prefix') !== false,
    removeExtraWhitespaces: false
  }
  return tokenizerFromSentencePiece(model, { config, addedTokens: undefined, specialTokensMap: undefined })
}

/**
 * The tokenizer of a GGUF file as tokenizer.json and tokenizer_config.json. Errors: kinds of tokenizers other than byte-level BPE with
 * the splitting rules of Qwen2, SmolLM, GPT-2 or GPT-OSS (`gpt2` with `qwen2`, `smollm`, `gpt-2` or `gpt-4o`) and SentencePiece BPE (`llama`).
 */
export const ggufTokenizer = (metadata: GgufMetadata, path: string): E.Either<Issues, TokenizerFiles> => {
  const [kind, rules, tokens] = [at(metadata, 'model'), at(metadata, 'pre'), list<string>(metadata, 'tokens')]
  const types = list<number>(metadata, 'token_type')
  const config = configOf(metadata, tokens)
  if (kind === 'llama') return E.right({ tokenizer: sentencePiece(metadata, tokens, types, config), config })
  if (kind === 'gpt2' && isSplittingRules(rules))
    return E.map((tokenizer: unknown) => ({ tokenizer, config }))(byteLevel(metadata, tokens, types, rules, path))
  return invalid('NoTokenizer', `${path}: its tokenizer is ${kind} with the splitting rules ${rules}; read are gpt2 with qwen2, smollm, gpt-2 or gpt-4o, and llama`, { path }) // biome-ignore format: one line
}
