import * as E from 'fp-ts/lib/Either.js'
import * as t from 'io-ts'
import { type Issues, invalid, nameText } from '../../lib/error.js'
import { decode } from '../config/decode-json.js'

// Source: `Qwen2Tokenizer` (transformers 5.24)
const SPLIT =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
// Splitting rules of GPT-OSS. Source: `o200k_base` (tiktoken 0.14)
const O200K = [
  "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
  "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
  '\\p{N}{1,3}',
  ' ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*',
  '\\s*[\\r\\n]+',
  '\\s+(?!\\S)',
  '\\s+'
].join('|')

// Splitting rules of GPT-2. Source: `ByteLevel` (tokenizers 0.23)
const GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
// SmolLM splits every digit on its own first, then the text between them as GPT-2
const SMOLLM = "\\p{N}|'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?![^\\s\\p{N}])|\\s+"

/** Rules of byte-level tokenizers: the normalizer, the split, and whether a whole piece of the vocabulary is taken before any merge. */
const splittingRules = {
  qwen2: { normalizer: { type: 'NFC' }, pattern: SPLIT, ignoreMerges: false },
  'gpt-2': { normalizer: null, pattern: GPT2, ignoreMerges: false },
  smollm: { normalizer: null, pattern: SMOLLM, ignoreMerges: false },
  'gpt-4o': { normalizer: null, pattern: O200K, ignoreMerges: true }
} as const

/** Names of splitting rules, as GGUF files have them. */
export type SplittingRules = keyof typeof splittingRules
export const isSplittingRules = (name: unknown): name is SplittingRules => Object.hasOwn(splittingRules, nameText(name))

const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: false, use_regex: false }

/** Splits by a pattern, then into bytes. */
const splitIntoBytes = (pattern: string, addPrefixSpace = false) => ({
  type: 'Sequence',
  pretokenizers: [
    { type: 'Split', pattern: { Regex: pattern }, behavior: 'Isolated', invert: false },
    { ...byteLevel, add_prefix_space: addPrefixSpace }
  ]
})

/** tokenizer.json of a byte-level BPE from its vocabulary and the lines of merges.txt. Errors name `file`. */
export const byteLevelTokenizer = (
  vocabulary: unknown,
  mergesText: string,
  rules: SplittingRules,
  file: string
): E.Either<Issues, unknown> => {
  const { normalizer, pattern, ignoreMerges } = splittingRules[rules]
  const merges = mergesText.split(/\r?\n/).filter((line, i) => line !== '' && !(i === 0 && line.startsWith('#version')))
  return E.map((vocab: Readonly<Record<string, number>>) => ({
    added_tokens: [],
    normalizer,
    pre_tokenizer: splitIntoBytes(pattern),
    post_processor: null,
    decoder: byteLevel,
    model: { type: 'BPE', vocab, merges, unk_token: null, byte_fallback: false, ...(ignoreMerges ? { ignore_merges: true } : {}) }
  }))(decode(t.record(t.string, t.number), vocabulary, file))
}

/** Pieces have this character for a space. */
export const space = '▁'

type Settings = Readonly<Record<string, unknown>>

/** Decoder of pieces whose spaces are `▁`; with a prefix the space before a text is removed. */
export const spaceDecoder = (hasPrefix: boolean) => ({
  type: 'Sequence',
  decoders: [
    { type: 'Replace', pattern: { String: space }, content: ' ' },
    { type: 'ByteFallback' },
    { type: 'Fuse' },
    ...(hasPrefix ? [{ type: 'Strip', content: ' ', start: 1, stop: 0 }] : [])
  ]
})

/** Llama's parts: every text, or with `legacy: false` the first one alone, begins with a space. Source: `LlamaTokenizer` (transformers 5.24). */
const llamaParts = ({ add_prefix_space: prefix, legacy }: Settings) => {
  const hasPrefix = Boolean(prefix ?? true)
  const scheme = hasPrefix ? (legacy ? 'always' : 'first') : 'never'
  return {
    normalizer: null,
    pre_tokenizer: { type: 'Metaspace', replacement: space, prepend_scheme: scheme, split: false },
    decoder: spaceDecoder(hasPrefix)
  }
}

/** Parts of the classes that take vocabulary and merges from tokenizer.json and build the rest themselves. Source: transformers 5.24. */
const classParts: Readonly<Record<string, (settings: Settings) => object>> = {
  LlamaTokenizer: llamaParts,
  Qwen2Tokenizer: ({ add_prefix_space: prefix }) => ({
    normalizer: splittingRules.qwen2.normalizer,
    pre_tokenizer: splitIntoBytes(splittingRules.qwen2.pattern, prefix === true),
    decoder: byteLevel
  }),
  GPT2Tokenizer: ({ add_prefix_space: prefix }) => ({
    normalizer: null,
    pre_tokenizer: { ...byteLevel, add_prefix_space: prefix === true, use_regex: true },
    decoder: byteLevel
  })
}

/**
 * tokenizer.json with the normalizer, pre-tokenizer and decoder of the class that tokenizer_config.json names, where that class builds its own;
 * otherwise unchanged. Source: `TokenizersBackend.convert_to_native_format` (transformers 5.24).
 */
export const withClassParts = <J extends { readonly model: Settings }>(json: J, settings: Settings): J => {
  const name = nameText(settings.tokenizer_class).replace(/Fast$/, '')
  if (json.model.type !== 'BPE' || !json.model.merges || !Object.hasOwn(classParts, name)) return json
  const model = name === 'LlamaTokenizer' ? { ...json.model, fuse_unk: true, byte_fallback: true } : json.model
  return { ...json, ...classParts[name]!(settings), model }
}

/** Tokenizers with Qwen2's splitting rules. Intern-S1's has further models for chemical notations, which are not read. */
const QWEN2_CLASSES = ['Qwen2Tokenizer', 'Qwen2TokenizerFast', 'InternS1Tokenizer', 'InternS1TokenizerFast']

/**
 * The tokenizer.json equivalent of vocab.json and merges.txt, the only tokenizer files of some checkpoints in OpenGVLab's layout.
 * Added tokens come from tokenizer_config.json. Errors: a tokenizer class other than Qwen2, whose splitting rules are unknown.
 */
export const tokenizerFromVocabulary = (
  vocabulary: unknown,
  mergesText: string,
  tokenizerClass: unknown,
  dir: string
): E.Either<Issues, unknown> => {
  if (!QWEN2_CLASSES.includes(nameText(tokenizerClass)))
    return invalid('NoTokenizer', `${dir}: no tokenizer.json, and vocab.json is not enough for a ${nameText(tokenizerClass)}.`, {
      dir
    })
  return byteLevelTokenizer(vocabulary, mergesText, 'qwen2', `${dir}/vocab.json`)
}
