import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { orThrow } from '../../../lib/error.js'
import { disposeParams, namedParameters } from '../../../lib/params.js'
import { tf } from '../../../lib/tf.js'
import { inspectModel } from '../../../models/checkpoint/inspect-model.js'
import { loadModel } from '../../../models/checkpoint/load-model.js'
import { type MemoryNeed, memoryIssue, precisions, workingBytes } from '../../../models/checkpoint/memory-check.js'
import { saveModel } from '../../../models/checkpoint/save-model.js'
import type { Json } from '../../../models/config/config-fields.js'
import { loadVision } from '../../../models/internvl/vision-encoder.js'
import { check } from '../../laws/check.js'
import { inFolder, modelJson, quantizableJson, readJson, smallModel } from '../folders.js'

const decoders = ['qwen2', 'qwen3_moe', 'gpt_oss'] as const
const needs: readonly MemoryNeed[] = precisions.map(({ name }, i) => ({ name, bytes: 8e9 / 2 ** i }))

const withMemory = async <A>(memory: string, run: () => Promise<A>): Promise<A> => {
  process.env.INTERNVL_MEMORY = memory
  try {
    return await run()
  } finally {
    delete process.env.INTERNVL_MEMORY
  }
}

/** Runs a test with the folder of a small model. */
const withModel = (json: Json, test: (folder: string) => Promise<void>) =>
  inFolder(async (folder) => {
    const { config, params } = smallModel(json)
    await orThrow(saveModel(folder, { config, params }))
    disposeParams(params)
    await test(folder)
  })

describe('the memory check before loading', () => {
  it('the need of each precision equals the memory of its parameters', async () => {
    for (const [json, decoder] of decoders.flatMap((name) =>
      [modelJson(name), quantizableJson(name)].map((json) => [json, name] as const)
    ))
      await withModel(json, async (folder) => {
        const { needs, stackedBytes } = await orThrow(inspectModel(folder))
        for (const [i, { options }] of precisions.entries()) {
          const { params, dispose } = await orThrow(loadModel(folder, options))
          const bytes = namedParameters(params).reduce((n, [, leaf]) => n + 4 * leaf.size, 0)
          assert.equal(needs[i]!.bytes, bytes, `${decoder} ${needs[i]!.name}`)
          dispose()
        }
        assert.equal(stackedBytes > 0, decoder === 'gpt_oss')
      })
  })

  it('refuses a model exactly if the memory is too small; the message lists every precision that fits', () =>
    check(
      fc.record({
        free: fc.integer({ min: 0, max: 12 }),
        swap: fc.integer({ min: 0, max: 4 }),
        sure: fc.boolean(),
        i: fc.nat(3)
      }),
      ({ free, swap, sure, i }) => {
        const available = { bytes: free * 1e9, bytesWithSwap: (free + swap) * 1e9, exact: sure }
        const wanted = needs[i]!.bytes
        const found = memoryIssue(wanted, needs, available)
        assert.equal(found === undefined, wanted + workingBytes <= available.bytes)
        if (!found) return
        assert.equal(found.isSure, sure && wanted + workingBytes > available.bytesWithSwap)
        const { message } = found.issue
        for (const { name, bytes } of needs.slice(i + 1)) {
          const fits = bytes + workingBytes <= available.bytes
          const last = name === 'int4' && message.includes('nothing fits')
          assert.equal(message.includes(` ${name} needs`), fits || last, message)
        }
      },
      100
    ))

  it('reads no weight of a refused model, unless forced', () =>
    withModel(modelJson('qwen2'), (folder) =>
      withMemory('1MB', async () => {
        const before = tf.memory().numTensors
        const reading = { onProgress: () => assert.fail('it reads') }
        for (const result of [await loadModel(folder, reading)(), await loadVision(folder, reading)()]) {
          assert.equal(result._tag === 'Left' && result.left[0]._tag, 'MemoryShort')
          assert.match(result._tag === 'Left' ? result.left[0].message : '', /--force/)
        }
        assert.equal(tf.memory().numTensors, before)
        ;(await orThrow(loadModel(folder, { checkMemory: false }))).dispose()
      })
    ))
})

describe('weights that other software quantized in a way that is not read', () => {
  const refusal = async (folder: string, quantization_config: object, part?: string) => {
    const json = await readJson(folder)
    const changed = part
      ? { ...json, [part]: { ...(json[part] as object), quantization_config } }
      : { ...json, quantization_config }
    await writeFile(join(folder, 'config.json'), JSON.stringify(changed))
    const results = [await loadModel(folder)(), await loadVision(folder)(), await inspectModel(folder)()]
    await writeFile(join(folder, 'config.json'), JSON.stringify(json))
    const messages = results.map((result) =>
      result._tag === 'Left' ? result.left.map(({ message }) => message).join('\n') : 'fine'
    )
    assert.equal(new Set(messages).size, 1)
    return messages[0]!
  }

  it('are refused with advice, wherever quantization_config stands; MXFP4 and a config without a method are not', () =>
    withModel(modelJson('qwen2'), async (folder) => {
      const says = /config\.json: its weights are quantized by (\S+),.*unquantized, with --quantize (int8|int4)/
      const cases = [
        [{ quant_method: 'awq', bits: 8, group_size: 128 }, 'AWQ', 'int8'],
        [{ quant_method: 'awq', bits: 4, version: 'gemv' }, 'AWQ', 'int4'],
        [{ quant_method: 'gptq', bits: 3 }, 'GPTQ', 'int4'],
        [{ quant_method: 'compressed-tensors', format: 'marlin-24' }, 'compressed-tensors', 'int4'],
        [{ quant_method: 'hqq', bits: 8 }, 'hqq', 'int8']
      ] as const
      for (const part of [undefined, 'text_config'])
        for (const [note, method, bits] of cases)
          assert.deepEqual(says.exec(await refusal(folder, note, part))?.slice(1), [method, bits])
      assert.equal(await refusal(folder, { quant_method: 'mxfp4' }), 'fine')
      assert.equal(await refusal(folder, {}), 'fine')
      assert.match(
        await refusal(folder, { library: 'internvl-tfjs', version: 2 }),
        /version 2 of the format, and this release reads version 1/
      )
    }))
})
