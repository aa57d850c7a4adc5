import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers'
import fc from 'fast-check'
import * as E from 'fp-ts/lib/Either.js'
import { getOrThrow, InternVLError } from '../../../lib/error.js'
import { addedTokenSplitter } from '../../../processors/text/added-tokens.js'
import { type BpeModel, mergeSteps } from '../../../processors/text/bpe-merges.js'
import { runSteps } from '../../../processors/text/tokenize-steps.js'
import { buildTokenizer, type Tokenizer } from '../../../processors/text/tokenizer.js'
import { hostileText } from '../../arbitraries/message.js'
import { cases, demo } from '../cases.js'

const json = (name: string): Record<string, unknown> => JSON.parse(readFileSync(`${demo}/${name}`, 'utf8'))
const files = { tokenizer: json('tokenizer.json'), config: json('tokenizer_config.json') }
const withConfig = (config: Record<string, unknown>): Tokenizer =>
  getOrThrow(buildTokenizer(files.tokenizer, { ...files.config, ...config }, demo))

describe('tokenizer', () => {
  const tokenizer = withConfig({})
  const added = tokenizer.addedTokens.map(({ content }) => content)

  it("ids equal Transformers', including special tokens in the text", () => {
    for (const [text, ids] of cases.tokens) assert.deepEqual(tokenizer.encode(text), ids, text)
  })

  it('decode inverts encode', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: 'grapheme' }), hostileText(added)), (text) => {
        assert.equal(tokenizer.decode(tokenizer.encode(text)), text.normalize('NFC'))
      })
    )
  })

  it('decode skips special tokens on request, and unknown ids always', () => {
    const ids = tokenizer.encode('<|im_start|>user\nHi<|im_end|>')
    assert.equal(tokenizer.decode([...ids, 10 ** 6], { skipSpecialTokens: true }), 'user\nHi')
    assert.equal(tokenizer.decode(ids), '<|im_start|>user\nHi<|im_end|>')
    assert.equal(tokenizer.decode([]), '')
  })

  it('plain text never becomes a special token', () => {
    fc.assert(fc.property(hostileText(added), (text) => !tokenizer.encodePieces([text]).some(tokenizer.isSpecial)))
  })

  it('joins adjacent texts, and repeats tokens', () => {
    fc.assert(
      fc.property(fc.array(fc.string({ maxLength: 4 })), (texts) => {
        assert.deepEqual(tokenizer.encodePieces(texts), tokenizer.encodePieces([texts.join('')]))
      })
    )
    assert.deepEqual(tokenizer.encodePieces([{ id: 5, count: 3 }]), [5, 5, 5])
  })

  it('encodes long words as the BPE of @huggingface/tokenizers', () => {
    const model = new HuggingFaceTokenizer(files.tokenizer, files.config).model! as unknown as BpeModel & {
      readonly bpe: (word: string) => string[]
    }
    const symbols = [...model.bpe_ranks.keys()].flatMap((pair) => JSON.parse(pair) as string[])
    const words = fc.array(fc.constantFrom(...symbols), { minLength: 1, maxLength: 300 }).map((parts) => parts.join(''))
    fc.assert(fc.property(words, (word) => assert.deepEqual(runSteps(mergeSteps(model, word)), model.bpe(word))))
  })

  it('encodePiecesAsync gives the same ids and lets other work run meanwhile', async () => {
    for (const text of ['hello world, foo '.repeat(8000), '数え切'.repeat(16_000), 'a'.repeat(60_000)]) {
      let turns = 0
      const count = () => {
        turns++
        next = setImmediate(count)
      }
      let next = setImmediate(count)
      assert.deepEqual(
        await tokenizer.encodePiecesAsync([text, { id: 5, count: 2 }]),
        tokenizer.encodePieces([text, { id: 5, count: 2 }])
      )
      clearImmediate(next)
      assert.ok(turns > 0, `${turns} turns`)
    }
  })

  it('adds begin and end tokens where tokenizer_config.json says so', () => {
    const both = withConfig({ bos_token: '<|im_start|>', add_bos_token: true, add_eos_token: true })
    const [bos, eos] = [both.idOf('<|im_start|>'), both.idOf('<|im_end|>')]
    assert.deepEqual(both.encode('x'), [bos, ...tokenizer.encode('x'), eos])
    assert.deepEqual(both.encode('x', { addSpecialTokens: false }), tokenizer.encode('x'))
  })

  it('classes that build their own normalizer and pre-tokenizer take only vocabulary and merges from tokenizer.json', () => {
    const pieces = ['<unk>', '<s>', '</s>', '▁', 'a', 'b', '▁a', '▁b']
    const vocab = Object.fromEntries(pieces.map((piece, id) => [piece, id]))
    const model = { type: 'BPE', vocab, merges: ['▁ a', '▁ b'], unk_token: '<unk>', fuse_unk: true, byte_fallback: true }
    const prepend = { type: 'Sequence', normalizers: [{ type: 'Prepend', prepend: '▁' }, { type: 'Replace', pattern: { String: ' ' }, content: '▁' }] } // biome-ignore format: one line
    const added_tokens = [{ id: 8, content: '<x>', special: true }]
    const json = { model, normalizer: prepend, pre_tokenizer: null, decoder: null, added_tokens } // as Transformers 4 saves it
    const encode = (tokenizer_class: string, more = {}) =>
      getOrThrow(buildTokenizer(json, { tokenizer_class, ...more }, 'made')).encode('a<x>b')
    assert.deepEqual(encode('PreTrainedTokenizerFast'), [6, 8, 7])
    for (const name of ['LlamaTokenizer', 'LlamaTokenizerFast']) assert.deepEqual(encode(name, { legacy: false }), [6, 8, 5])
    assert.deepEqual(encode('LlamaTokenizer', { legacy: true }), [6, 8, 7])
    assert.deepEqual(encode('LlamaTokenizer', { add_prefix_space: false }), [4, 8, 5])
    const nfc = (tokenizer_class: string) =>
      getOrThrow(buildTokenizer({ ...files.tokenizer, normalizer: null }, { ...files.config, tokenizer_class }, demo))
    assert.deepEqual(nfc('Qwen2Tokenizer').encode('e\u0301'), nfc('Qwen2Tokenizer').encode('\u00e9'))
    assert.notDeepEqual(nfc('PreTrainedTokenizerFast').encode('e\u0301'), nfc('Qwen2Tokenizer').encode('\u00e9'))
  })

  it('reads token names from every field, and tokens that only tokenizer_config.json lists', () => {
    const { names } = withConfig({ context_image_token: null, extra_special_tokens: { context_image_token: '<quad>' } })
    assert.equal(names.context_image_token, '<quad>')
    assert.equal(withConfig({ pad_token: { content: '<box>' } }).names.pad_token, '<box>')
    const more = withConfig({ added_tokens_decoder: { '900': { content: '<new>', special: true } } })
    assert.deepEqual(more.encode('<new>'), [900])
  })

  it('splits at the leftmost longest token; lstrip, rstrip and single_word', () => {
    const plain = { lstrip: false, rstrip: false, singleWord: false, special: true }
    const token = (content: string, more = {}) => ({ ...plain, id: 1, content, ...more })
    const found = (text: string, ...tokens: ReturnType<typeof token>[]) =>
      addedTokenSplitter(tokens)(text).map((piece) => (typeof piece === 'string' ? piece : [piece.content]))
    assert.deepEqual(found('a<i><im>b', token('<i>'), token('<i><im>')), ['a', ['<i><im>'], 'b'])
    assert.deepEqual(found('a <x>\n b', token('<x>', { lstrip: true, rstrip: true })), ['a', ['<x>'], 'b'])
    assert.deepEqual(found('cats cat', token('cat', { singleWord: true })), ['cats ', ['cat']])
  })

  it('names a field of tokenizer.json with a value of another type, for any field and value', () => {
    const base = files.tokenizer as {
      readonly model: object
      readonly pre_tokenizer: { readonly pretokenizers: readonly object[] }
    }
    const [split, ...others] = base.pre_tokenizer.pretokenizers
    const inModel = (change: object) => ({ ...base, model: { ...base.model, ...change } })
    const inSplit = (change: object) => ({
      ...base,
      pre_tokenizer: { ...base.pre_tokenizer, pretokenizers: [{ ...split, ...change }, ...others] }
    })
    const odd = fc.constantFrom<unknown>(0, true, [[]], [0], { a: 1 }, 1e300)
    const changes = fc.oneof(
      fc
        .tuple(fc.constantFrom('behavior', 'type'), odd)
        .map(([name, value]) => [`pre_tokenizer.pretokenizers.0.${name}`, inSplit({ [name]: value })] as const),
      fc.tuple(odd).map(([value]) => ['pre_tokenizer.pretokenizers.0.pattern', inSplit({ pattern: { Regex: value } })] as const),
      fc
        .tuple(fc.constantFrom('merges', 'unk_token'), odd)
        .map(([name, value]) => [`model.${name}`, inModel({ [name]: value })] as const),
      fc.tuple(odd).map(([value]) => ['model.vocab', inModel({ vocab: { a: String(value) } })] as const)
    )
    fc.assert(
      fc.property(changes, ([path, changed]) => {
        const built = buildTokenizer(changed, files.config, 'dir')
        assert.ok(E.isLeft(built) && built.left[0].message.startsWith(`dir/tokenizer.json: ${path}: expected `), path)
      })
    )
    const noMerges = buildTokenizer(inModel({ type: 'BPE', merges: undefined }), files.config, 'dir')
    assert.ok(E.isLeft(noMerges) && /model\.merges: missing/.test(noMerges.left[0].message))
  })

  it('ends a regular expression whose time grows exponentially, and says so', () => {
    const split = (Regex: string) => ({ type: 'Split', pattern: { Regex }, behavior: 'Isolated', invert: false })
    const config = { ...files.config, tokenizer_class: 'PreTrainedTokenizerFast' } // a class that takes the pre-tokenizer of the file
    const slow = getOrThrow(buildTokenizer({ ...files.tokenizer, pre_tokenizer: split('(\\w+\\s?)+x') }, config, demo))
    assert.throws(
      () => slow.encode('1'.repeat(900)),
      (error) => error instanceof InternVLError && /takes more than 2 s/.test(error.message)
    )
    assert.ok(slow.encode('1x 2x').length > 0)
  }).timeout(60_000)

  it('reports invalid files', () => {
    const wrong = (value: unknown): string => {
      const result = buildTokenizer(value, {}, 'dir')
      return E.isLeft(result) ? result.left[0].message : 'no error'
    }
    assert.match(wrong({}), /dir\/tokenizer\.json: model: expected .*, got nothing/)
    assert.match(wrong({ model: {} }), /dir\/tokenizer\.json: the tokenizer cannot be built/)
    assert.match(
      wrong({ model: {}, added_tokens: [{ id: 'x', content: 'y' }] }),
      /added_tokens\.0\.id: expected a whole number from 0 to 2147483647, got "x"/
    )
  })
})
