import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { getOrThrow } from '../../../lib/error.js'
import { ggufTokenizer } from '../../../processors/text/gguf-tokenizer.js'
import { buildTokenizer } from '../../../processors/text/tokenizer.js'

const o200k = JSON.parse(readFileSync(new URL('../../reference/formats/o200k.json', import.meta.url), 'utf8')) as {
  readonly tokens: readonly string[]
  readonly merges: readonly string[]
  readonly texts: ReadonlyArray<readonly [text: string, ids: readonly number[]]>
}

const metadata = (rules: string) =>
  new Map<string, unknown>([
    ['tokenizer.ggml.model', 'gpt2'],
    ['tokenizer.ggml.pre', rules],
    ['tokenizer.ggml.tokens', o200k.tokens],
    ['tokenizer.ggml.token_type', o200k.tokens.map(() => 1)],
    ['tokenizer.ggml.merges', o200k.merges]
  ])

describe('tokenizers in GGUF', () => {
  it('GPT-OSS’s splitting rules: ids are those of tokenizers with the pattern of tiktoken', () => {
    const { tokenizer, config } = getOrThrow(ggufTokenizer(metadata('gpt-4o'), 'model.gguf'))
    const { encode } = getOrThrow(buildTokenizer(tokenizer, config, 'model.gguf'))
    assert.ok(o200k.texts.length > 100)
    for (const [text, ids] of o200k.texts) assert.deepEqual([...encode(text)], ids, JSON.stringify(text))
  })

  it('other splitting rules are refused by name', () => {
    const result = ggufTokenizer(metadata('tekken'), 'model.gguf')
    assert.match(
      result._tag === 'Left' ? result.left[0].message : '',
      /model\.gguf: its tokenizer is gpt2 with the splitting rules tekken/
    )
  })
})
