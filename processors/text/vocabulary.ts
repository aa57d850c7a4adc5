import * as E from 'fp-ts/lib/Either.js'
import * as t from 'io-ts'
import { type Issues, invalid } from '../../lib/error.js'
import { decode } from '../config/decode-json.js'

// Source: `Qwen2Tokenizer` (transformers 5.24)
const SPLIT =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: false, use_regex: false }

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
  if (!QWEN2_CLASSES.includes(String(tokenizerClass)))
    return invalid('NoTokenizer', `${dir}: no tokenizer.json, and vocab.json is not enough for a ${String(tokenizerClass)}.`, {
      dir
    })
  const merges = mergesText.split(/\r?\n/).filter((line, i) => line !== '' && !(i === 0 && line.startsWith('#version')))
  return E.map((vocab: Readonly<Record<string, number>>) => ({
    added_tokens: [],
    normalizer: { type: 'NFC' },
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [{ type: 'Split', pattern: { Regex: SPLIT }, behavior: 'Isolated', invert: false }, byteLevel]
    },
    post_processor: null,
    decoder: byteLevel,
    model: { type: 'BPE', vocab, merges, unk_token: null, byte_fallback: false }
  }))(decode(t.record(t.string, t.number), vocabulary, `${dir}/vocab.json`))
}
