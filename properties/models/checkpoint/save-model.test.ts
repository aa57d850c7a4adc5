import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { type FloatDtype, fromFloat32, toFloat32 } from '../../../lib/dtype.js'
import { getOrThrow, orThrow } from '../../../lib/error.js'
import { disposeParams, namedParameters } from '../../../lib/params.js'
import { writeCheckpointTensors } from '../../../lib/safetensors/write.js'
import { tf } from '../../../lib/tf.js'
import type { Layout } from '../../../models/checkpoint/layout.js'
import { loadModel } from '../../../models/checkpoint/load-model.js'
import { saveModel, weightTypes } from '../../../models/checkpoint/save-model.js'
import { configText } from '../../../models/config/config-json.js'
import { parseConfig } from '../../../models/config/parse-config.js'
import { hfJson } from '../../arbitraries/config.js'
import { checkAsync } from '../../laws/check.js'
import { inFolder, modelJson, readJson, smallModel, stored } from '../folders.js'

const dtype = fc.constantFrom('float32', 'bfloat16', 'float16' as const)
const layout = fc.constantFrom<Layout>('hf', 'hf-first', 'original')
const root = fileURLToPath(new URL('../../..', import.meta.url))

/** Parameters rounded to a type. */
const numbers = (params: unknown, type: FloatDtype) =>
  namedParameters(params).map(([key, leaf]) => {
    const values = toFloat32(fromFloat32(leaf.dataSync() as Float32Array, type), type)
    return [key, leaf.shape, [...values]] as const
  })

describe('saving a model', () => {
  it('saved parameters load bit for bit, in every layout, type and shard size', () =>
    checkAsync(
      fc.record({ json: hfJson, dtype, layout, shardBytes: fc.constantFrom(500, 1e9) }),
      async ({ json, dtype, layout, shardBytes }) => {
        const { config, params } = smallModel(json)
        await inFolder(async (folder) => {
          await orThrow(
            saveModel(folder, { config, params, dtype, layout, shardBytes, json: { ...json, mine: [1, { two: 2 }] } })
          )
          const loaded = await orThrow(loadModel(folder, { imageTokenId: config.imageTokenId }))
          const type = weightTypes[dtype]
          assert.deepEqual(numbers(loaded.params, 'F32'), numbers(params, type))
          assert.deepEqual(new Set((await stored(folder)).map((tensor) => tensor.dtype)), new Set([type]))
          assert.deepEqual((await readJson(folder)).mine, [1, { two: 2 }], 'unknown fields are kept')
          assert.deepEqual(
            { ...loaded.config, original: undefined, imageSeqLength: 0 },
            { ...config, dialect: loaded.config.dialect, dtype, imageSeqLength: 0 }
          )
          loaded.dispose()
        })
        disposeParams(params)
      },
      20
    ))

  it('saving a loaded model again gives the same files', () =>
    checkAsync(fc.constantFrom('qwen2', 'qwen3', 'llama', 'phi3', 'qwen3_moe', 'gpt_oss'), async (decoder) => {
      const { config, params } = smallModel(modelJson(decoder))
      await inFolder(async (folder) => {
        const [first, second] = [join(folder, 'a'), join(folder, 'b')]
        await orThrow(saveModel(first, { config, params, dtype: 'bfloat16' }))
        const loaded = await orThrow(loadModel(first))
        await orThrow(saveModel(second, { config: loaded.config, params: loaded.params, dtype: 'bfloat16' }))
        assert.deepEqual(await stored(second), await stored(first))
        assert.deepEqual(await readJson(second), await readJson(first))
        loaded.dispose()
      })
      disposeParams(params)
    }))

  it('a failed save leaves the old folder unchanged, for any shards', () =>
    checkAsync(fc.record({ before: fc.constantFrom(60, 1e9), after: fc.constantFrom(60, 1e9), at: fc.nat(3) }), (sample) =>
      inFolder(async (folder) => {
        const tensor = (key: string, byte: number, broken = false) => ({
          key,
          dtype: 'U8' as const,
          shape: [50],
          bytes: () => {
            if (broken) throw Object.assign(new Error('no space left'), { syscall: 'write' })
            return new Uint8Array(50).fill(byte)
          }
        })
        const keys = ['a', 'b', 'c', 'd']
        const old = new Map([['config.json', 'old']])
        await orThrow(
          writeCheckpointTensors(
            folder,
            keys.map((key) => tensor(key, 1)),
            { shardBytes: sample.before, files: old }
          )
        )
        const [names, contentsBefore] = [(await readdir(folder)).sort(), await stored(folder)]
        const next = keys.map((key, i) => tensor(key, 2, i === sample.at))
        const failed = await writeCheckpointTensors(folder, next, {
          shardBytes: sample.after,
          files: new Map([['config.json', 'new']])
        })()
        assert.equal(failed._tag, 'Left')
        assert.deepEqual((await readdir(folder)).sort(), names)
        assert.deepEqual(await stored(folder), contentsBefore)
      })
    ))

  it('a killed save leaves the old folder complete, and the next save removes the leftovers', async () => {
    await inFolder(async (folder) => {
      const json = modelJson('qwen2')
      const { config, params } = smallModel(json)
      await orThrow(saveModel(folder, { config, params, shardBytes: 2000 }))
      const contentsBefore = await stored(folder)
      const script = `
        const { writeCheckpointTensors } = await import('./lib/safetensors/write.ts')
        const tensor = (key, bytes) => ({ key, dtype: 'U8', shape: [4], bytes })
        const die = () => process.kill(process.pid, 'SIGKILL')
        await writeCheckpointTensors(process.argv[1], [tensor('a', () => new Uint8Array(4)), tensor('b', die)], { shardBytes: 4 })()`
      const args = ['--import', 'tsx', '--input-type=module', '-e', script, folder]
      await new Promise<void>((done) => execFile(process.execPath, args, { cwd: root }, () => done()))
      assert.ok(
        (await readdir(folder)).some((name) => name.endsWith('.tmp')),
        'it was killed half way'
      )
      assert.deepEqual(await stored(folder), contentsBefore)
      await orThrow(saveModel(folder, { config, params }))
      assert.deepEqual((await readdir(folder)).sort(), ['config.json', 'model.safetensors'])
      disposeParams(params)
    })
  })

  it('a field that a layout cannot express, and a parameter without a name in it, are both errors', async () => {
    const json = { ...modelJson('qwen2'), projector_hidden_act: 'relu' }
    const { config } = smallModel(json)
    const tensors = { 'model.vision_tower.layernorm.weight': tf.ones([8]) }
    const result = await saveModel('/nowhere', { config, tensors, layout: 'original' })()
    assert.deepEqual(result._tag === 'Left' && result.left.map(({ _tag }) => _tag), ['ConfigUntranslatable', 'KeyUnmapped'])
  })

  it('float fields are written as floats, because Transformers refuses integers there', () => {
    const json = { swiglu_limit: 7, nested: [{ long_factor: [1, 1.5], rope_theta: 10000 }], hidden_size: 8, factor: null }
    const text = configText(json)
    for (const part of ['"swiglu_limit": 7.0', '"rope_theta": 10000.0', '"hidden_size": 8\n', '"hidden_size": 8,'].slice(0, 2))
      assert.ok(text.includes(part), part)
    assert.match(text, /"long_factor": \[\s*1\.0,\s*1\.5\s*\]/)
    assert.match(text, /"hidden_size": 8[,\n]/)
    assert.deepEqual(JSON.parse(text), json)
    assert.ok(getOrThrow(parseConfig(JSON.parse(configText(modelJson('gpt_oss'))))))
  })
})
