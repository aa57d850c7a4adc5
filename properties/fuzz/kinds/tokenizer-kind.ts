import fc from 'fast-check'
import { loadProcessor } from '../../../processors/processor.js'
import { texts } from '../awkward.js'
import { demoText, tokenizerConfig, tokenizerJson } from '../base-files.js'
import { editJson, type JsonEdit, jsonEdits } from '../edits.js'
import { copyWith } from '../fixture.js'
import { attempt, settle } from '../verdict.js'
import { fuzzKind } from './fuzz-kind.js'

interface Input {
  readonly file: 'tokenizer.json' | 'tokenizer_config.json'
  readonly edits: readonly JsonEdit[]
  readonly text: string
}

const { vocab, merges, ...bpe } = tokenizerJson.model

/** The tokenizer with ten entries of its vocabulary and merges, so that most edits change another part. */
const shortTokenizer = { ...tokenizerJson, model: { ...bpe, vocab: Object.fromEntries(Object.entries(vocab).slice(0, 10)), merges: merges.slice(0, 10) } } // biome-ignore format: one line

const tokenizerFields: readonly (readonly [readonly string[], unknown])[] = [
  [['normalizer'], { type: 'NFKC' }],
  [['normalizer'], { type: 'Sequence', normalizers: [{ type: 'Replace', pattern: { Regex: '(a+)+$' }, content: 'b' }] }],
  [['pre_tokenizer'], { type: 'Split', pattern: { Regex: '(\\w+\\s?)+x' }, behavior: 'Isolated', invert: false }],
  [['pre_tokenizer'], { type: 'Whitespace' }],
  [['pre_tokenizer'], { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always' }],
  [['model', 'type'], 'WordPiece'],
  [['model', 'type'], 'Unigram'],
  [['model', 'byte_fallback'], true],
  [['decoder'], { type: 'Metaspace' }],
  [['post_processor'], { type: 'TemplateProcessing', single: [], pair: [], special_tokens: {} }]
]
const configFields: readonly (readonly [readonly string[], unknown])[] = [
  [['added_tokens_decoder'], { 1e12: { content: '<odd>', special: true } }],
  [['chat_template'], '{{ messages }}'],
  [['bos_token'], '<|im_start|>'],
  [['add_bos_token'], true]
]

/** tokenizer.json and tokenizer_config.json, then texts through the changed tokenizer and back. */
export const tokenizerKind = fuzzKind<Input>({
  name: 'tokenizer',
  arbitrary: fc.oneof(
    {
      weight: 3,
      arbitrary: fc.record({
        file: fc.constant('tokenizer.json' as const),
        edits: jsonEdits(shortTokenizer, { extra: tokenizerFields }),
        text: texts
      })
    },
    {
      weight: 1,
      arbitrary: fc.record({
        file: fc.constant('tokenizer_config.json' as const),
        edits: jsonEdits(tokenizerConfig, { extra: configFields }),
        text: texts
      })
    }
  ),
  run: async ({ file, edits, text }, fixture) => {
    const dir = copyWith(fixture, fixture.single, { [file]: editJson(demoText(file), edits) })
    const processor = await settle(loadProcessor(dir))
    const { ids } = await settle(processor.encodeBatch([[{ role: 'user', content: text }]]))
    await attempt(() => processor.decode(ids[0]!))
    await attempt(() =>
      settle(
        processor.encode([
          { role: 'user', content: 'a' },
          { role: 'assistant', content: text }
        ])
      )
    )
    return true
  }
})
