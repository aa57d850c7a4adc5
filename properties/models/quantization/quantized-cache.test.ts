import assert from 'node:assert/strict'
import { readdir, readFile, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { orThrow } from '../../../lib/error.js'
import { disposeParams, namedParameters } from '../../../lib/params.js'
import { type LoadModelOptions, loadModel } from '../../../models/checkpoint/load-model.js'
import { saveModel } from '../../../models/checkpoint/save-model.js'
import { loadVision } from '../../../models/internvl/vision-encoder.js'
import { checkAsync } from '../../laws/check.js'
import { inFolder, quantizableJson, smallModel, writeFolder } from '../folders.js'

const weights = 'model.safetensors'

/** A small model in a folder, beside its own cache folder. */
const withModel = (decoder: string, layout: 'hf' | 'original', test: (dir: string, cache: string) => Promise<void>) =>
  inFolder(async (folder) => {
    const before = process.env.INTERNVL_CACHE
    const [dir, cache] = [join(folder, 'model'), join(folder, 'cache')]
    process.env.INTERNVL_CACHE = cache
    try {
      const { config, params } = smallModel(quantizableJson(decoder))
      await orThrow(saveModel(dir, { config, params, layout }))
      disposeParams(params)
      await test(dir, join(cache, 'packed'))
    } finally {
      if (before === undefined) delete process.env.INTERNVL_CACHE
      else process.env.INTERNVL_CACHE = before
    }
  })

const numbersOf = (params: unknown) =>
  namedParameters(params).map(([key, leaf]) => [key, leaf.dtype, leaf.shape, leaf.dataSync()] as const)

const loaded = async (dir: string, options: LoadModelOptions) => {
  const { params, dispose } = await orThrow(loadModel(dir, { imageTokenId: 1, ...options }))
  const numbers = numbersOf(params)
  dispose()
  return numbers
}

/** Changes the last bytes of the cached weights, so that loading from the cache is visible in the numbers. */
const spoil = async (cache: string): Promise<void> => {
  const file = join(cache, (await readdir(cache))[0]!, weights)
  const bytes = await readFile(file)
  for (let i = 1; i <= 1000; i++) bytes[bytes.length - i]! ^= 1
  await writeFile(file, bytes)
}

describe('the cache of quantized weights', () => {
  const bits = fc.constantFrom('int8', 'int4' as const)
  const sample = fc.record({
    decoder: fc.constantFrom('qwen2', 'llama', 'qwen3_moe', 'gpt_oss'),
    quantize: fc.oneof(bits, fc.record({ vision: bits }), fc.record({ decoder: bits })),
    dtype: fc.constantFrom('float32', 'bfloat16', undefined),
    layout: fc.constantFrom('hf', 'original' as const)
  })

  it('equals quantizing bit for bit; the second time without reading the source weights', () =>
    checkAsync(
      sample,
      ({ decoder, layout, ...precision }) =>
        withModel(decoder, layout, async (dir, cache) => {
          const plain = await loaded(dir, precision)
          assert.deepEqual(await loaded(dir, { ...precision, cache: true }), plain)
          assert.deepEqual(await loaded(dir, { ...precision, cache: true }), plain)
          assert.equal((await readdir(cache)).length, 1)
          await spoil(cache)
          assert.notDeepEqual(await loaded(dir, { ...precision, cache: true }), plain)
        }),
      8
    ))

  it('keeps a head tied to the embeddings, for files with either tensor', () =>
    checkAsync(
      fc.record({ quantize: bits, both: fc.boolean() }),
      async ({ quantize, both }) =>
        withModel('qwen2', 'hf', async (dir) => {
          const { params } = smallModel(quantizableJson('qwen2'))
          const sources = namedParameters(params).map(([key, leaf]) => {
            const values = leaf.dataSync().slice()
            const bytes = async function* () {
              yield new Uint8Array(values.buffer)
            }
            return { key, dtype: 'F32' as const, shape: leaf.shape, bytes }
          })
          const [table, head] = ['model.language_model.embed_tokens.weight', 'lm_head.weight']
          const same = sources.find(({ key }) => key === table)!
          const written = sources.filter(({ key }) => key !== head && (both || key !== table))
          await writeFolder(dir, { ...quantizableJson('qwen2'), tie_word_embeddings: true }, [...written, { ...same, key: head }])
          disposeParams(params)
          const plain = await loaded(dir, { quantize })
          assert.ok(plain.every(([key]) => !key.startsWith('lm_head')))
          assert.deepEqual(await loaded(dir, { quantize, cache: true }), plain)
        }),
      4
    ))

  it('serves the vision encoder alone, and each precision has its own folder', () =>
    checkAsync(
      fc.constantFrom<LoadModelOptions['quantize']>('int8', { decoder: 'int4' }, { vision: 'int4' }),
      (quantize) =>
        withModel('qwen2', 'hf', async (dir, cache) => {
          const loadedValues = async (options: LoadModelOptions) => {
            const vision = await orThrow(loadVision(dir, { quantize, ...options }))
            const numbers = numbersOf(vision.params)
            vision.dispose()
            return numbers
          }
          const plain = await loadedValues({})
          for (const _ of [1, 2]) assert.deepEqual(await loadedValues({ cache: true }), plain)
          await loaded(dir, { quantize: { vision: 'int8', decoder: 'int4' }, cache: true })
          assert.equal((await readdir(cache)).length, 2)
        }),
      3
    ))

  it('is created again for a changed folder, and the stale folder is removed', () =>
    withModel('qwen2', 'hf', async (dir, cache) => {
      const options = { quantize: 'int8', cache: true } as const
      await loaded(dir, options)
      const before = await readdir(cache)
      await utimes(join(dir, weights), new Date(), new Date(Date.now() + 5000))
      await loaded(dir, options)
      const after = await readdir(cache)
      assert.equal(after.length, 1)
      assert.notDeepEqual(after, before)
    }))

  it('leaves nothing after a failure, and reports the reason', () =>
    withModel('qwen2', 'hf', async (dir, cache) => {
      await loaded(dir, { quantize: 'int8', cache: true })
      const packed = join(cache, (await readdir(cache))[0]!)
      const again = await loadModel(packed, { imageTokenId: 1, quantize: 'int4', cache: true })()
      assert.ok(again._tag === 'Left' && again.left.some((f) => f._tag === 'QuantizedAlready'))
      assert.equal((await readdir(cache)).length, 1)
      await writeFile(join(dir, weights), 'no tensors')
      assert.equal((await loadModel(dir, { imageTokenId: 1, quantize: 'int8', cache: true })())._tag, 'Left')
      assert.equal((await readdir(cache)).length, 1)
      const nowhere = await loadModel(join(dir, 'none'), { quantize: 'int8', cache: true })()
      assert.ok(nowhere._tag === 'Left' && nowhere.left[0].message.includes(join(dir, 'none')))
      for (const quantize of [undefined, {}, { vision: false } as const])
        await assert.rejects(loadModel(dir, { quantize, cache: true }), /quantize/)
    }))

  it('is skipped with one warning that names the folder, if the folder cannot be written', () =>
    withModel('qwen2', 'hf', async (dir, cache) => {
      await writeFile(join(cache, '..'), 'a file where the cache should be')
      const warnings: string[] = []
      const options = { quantize: 'int8', cache: true, onWarning: (line: string) => warnings.push(line) } as const
      const numbers = await loaded(dir, options)
      assert.equal(warnings.length, 1)
      assert.ok(warnings[0]!.includes(join(cache, '..')) && /without the cache/.test(warnings[0]!), warnings[0])
      assert.deepEqual(numbers, await loaded(dir, { quantize: 'int8' }))
    }))
})
