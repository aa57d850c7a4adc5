import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { cp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { demoModel, load } from '../../../../generation/checkpoint/load.js'
import { convert, save } from '../../../../generation/checkpoint/save.js'
import { getOrThrow, orThrow } from '../../../../lib/error.js'
import { readProcessorFolder } from '../../../../processors/config/checkpoint-folder.js'
import { loadProcessor } from '../../../../processors/processor.js'
import { parseModel } from '../../../../processors/text/sentencepiece/model-proto.js'
import { buildTokenizer, type Tokenizer } from '../../../../processors/text/tokenizer.js'
import { inFolder } from '../../../models/folders.js'

const models = fileURLToPath(new URL('./models/', import.meta.url))
const names = ['bpe', 'unigram', 'bpe-rules', 'unigram-rules'] as const

interface Expected {
  /** Four digits for each text: hashes of the ids. */
  readonly plain: string
  readonly split: string
  readonly sample: readonly (readonly [text: string, plain: readonly number[], split: readonly number[], decoded: string])[]
}
const expected = JSON.parse(readFileSync(`${models}ids.json`, 'utf8')) as Record<(typeof names)[number], Expected>

/** The fragments and the generator of `make_sentencepiece.py`. */
const script = readFileSync(fileURLToPath(new URL('../../../reference/formats/make_sentencepiece.py', import.meta.url)), 'utf8')
const fragments = ((): readonly string[] => {
  const list = script.slice(script.indexOf('FRAGMENTS = [') + 'FRAGMENTS = ['.length, script.indexOf('\n]\n'))
  const literals = list.replaceAll(/"([^"\\]|\\.)*"( \* \d+)?/g, (literal) => {
    const [text, times] = literal.split(/(?<=") \* /)
    return JSON.stringify((JSON.parse(text!) as string).repeat(Number(times ?? 1)))
  })
  return JSON.parse(`[${literals.trim().replace(/,$/, '')}]`) as readonly string[]
})()

const texts = (count: number): readonly string[] => {
  let state = 12345
  const draw = (n: number) => {
    state = (state * 16807) % 2147483647
    return state % n
  }
  return Array.from({ length: count }, () => {
    const n = 1 + draw(9)
    return Array.from({ length: n }, () => fragments[draw(fragments.length)]).join('')
  })
}

const digest = (ids: readonly number[]): string => {
  const value = ids.reduce((hash, id) => Number((BigInt((hash ^ id) >>> 0) * 403n) % 4294967291n), 2166136261)
  return (value % 65536).toString(16).padStart(4, '0')
}

const tokenizerOf = async (name: string): Promise<Tokenizer> => {
  const { tokenizer, tokenizerConfig } = await readProcessorFolder(models + name)
  return getOrThrow(buildTokenizer(tokenizer, tokenizerConfig, name))
}

describe('a folder with tokenizer.model alone', () => {
  for (const name of names)
    it(`${name}: the ids of 2,000 odd texts are those of sentencepiece and of Transformers`, async () => {
      const tokenizer = await tokenizerOf(name)
      const plainOf = (text: string) => tokenizer.encodePieces([text], { addSpecialTokens: false })
      const splitOf = (text: string) => tokenizer.encode(text, { addSpecialTokens: false })
      const { plain, split, sample } = expected[name]
      for (const [text, plainIds, splitIds, decoded] of sample) {
        assert.deepEqual(plainOf(text), plainIds, JSON.stringify(text))
        assert.deepEqual(splitOf(text), splitIds, JSON.stringify(text))
        assert.equal(tokenizer.decode(plainIds).replaceAll('<unk>', ' \u2047 '), decoded) // sentencepiece writes the unknown token as ⁇
      }
      for (const [i, text] of texts(2000).entries()) {
        assert.equal(digest(plainOf(text)), plain.slice(4 * i, 4 * i + 4), `plain ${JSON.stringify(text)}`)
        assert.equal(digest(splitOf(text)), split.slice(4 * i, 4 * i + 4), `split ${JSON.stringify(text)}`)
      }
    })

  it('convert and save write the tokenizer.json, which gives the same ids', () =>
    inFolder(async (folder) => {
      const [from, hf, original, saved] = ['from', 'hf', 'original', 'saved'].map((name) => join(folder, name)) as [
        string,
        string,
        string,
        string
      ]
      await cp(demoModel, from, { recursive: true })
      await Promise.all(['tokenizer.json', 'special_tokens_map.json'].map((name) => rm(join(from, name), { force: true })))
      for (const name of ['tokenizer.model', 'tokenizer_config.json']) await cp(`${models}bpe-rules/${name}`, join(from, name))
      const added = { '<img>': 300, '</img>': 301, '<IMG_CONTEXT>': 302, '<|im_end|>': 303 }
      await writeFile(join(from, 'added_tokens.json'), JSON.stringify(added))
      await convert(from, hf, { layout: 'hf' })
      await convert(from, original, { layout: 'original' })
      const { config, params, dispose } = await load(from)
      await save(saved, { config, params, processorFilesFrom: from })
      dispose()
      const { tokenizer } = await orThrow(loadProcessor(from))
      for (const dir of [hf, original, saved]) {
        await rm(join(dir, 'tokenizer.model')) // tokenizer.json is read without it
        const again = await orThrow(loadProcessor(dir))
        for (const text of texts(50)) assert.deepEqual(again.tokenizer.encode(text), tokenizer.encode(text))
        assert.equal(again.tokenizer.idOf('<IMG_CONTEXT>'), 302)
        assert.ok(again.tokenizer.isSpecial(1) && !again.tokenizer.isSpecial(again.tokenizer.idOf('<sep>')!))
      }
      const [begin] = tokenizer.encode('a') // InternLM2's class begins with <s> by default
      assert.equal(begin, 1)
    }))

  it('a damaged file, and a model without an equivalent, are errors that name the file', () => {
    const bytes = readFileSync(`${models}bpe/tokenizer.model`)
    const messageOf = (content: Uint8Array): string => {
      const result = parseModel(content, 'dir/tokenizer.model')
      return result._tag === 'Left' ? result.left[0].message : 'none'
    }
    assert.equal(messageOf(bytes), 'none')
    assert.match(messageOf(new Uint8Array(0)), /^dir\/tokenizer\.model: it is not a SentencePiece model \(no pieces\); restore/)
    assert.match(messageOf(bytes.subarray(0, 1000)), /not a SentencePiece model \(.*(longer|bounds)/)
    assert.match(messageOf(Buffer.from('version https://git-lfs')), /not a SentencePiece model/)
    const spec = Buffer.from([0x12, 2, 0x18, 3]) // model type: words
    assert.match(messageOf(Buffer.concat([bytes, spec])), /neither unigram nor bpe/)
  })
})
