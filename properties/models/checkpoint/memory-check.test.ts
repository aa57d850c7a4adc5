import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { orThrow } from '../../../lib/error.js'
import { disposeParams, namedParameters } from '../../../lib/params.js'
import { tf } from '../../../lib/tf.js'
import { inspectModel } from '../../../models/checkpoint/inspect-model.js'
import { loadModel } from '../../../models/checkpoint/load-model.js'
import { memoryIssue, type Need, precisions, workBytes } from '../../../models/checkpoint/memory-check.js'
import { saveModel } from '../../../models/checkpoint/save-model.js'
import type { Json } from '../../../models/config/config-fields.js'
import { loadVision } from '../../../models/internvl/vision-encoder.js'
import { check } from '../../laws/check.js'
import { inFolder, modelJson, packedJson, readJson, smallModel } from '../folders.js'

const decoders = ['qwen2', 'qwen3_moe', 'gpt_oss'] as const
const needs: readonly Need[] = precisions.map(({ name }, i) => ({ name, bytes: 8e9 / 2 ** i }))

const withMemory = async <A>(told: string, run: () => Promise<A>): Promise<A> => {
  process.env.INTERNVL_MEMORY = told
  try {
    return await run()
  } finally {
    delete process.env.INTERNVL_MEMORY
  }
}

/** A small model's folder. */
const withModel = (json: Json, test: (folder: string) => Promise<void>) =>
  inFolder(async (folder) => {
    const { config, params } = smallModel(json)
    await orThrow(saveModel(folder, { config, params }))
    disposeParams(params)
    await test(folder)
  })

describe('memory told before loading', () => {
  it('what each precision needs is what its parameters take', async () => {
    for (const [json, decoder] of decoders.flatMap((name) =>
      [modelJson(name), packedJson(name)].map((json) => [json, name] as const)
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

  it('is refused where it does not fit, and only there; the sentence names what fits, and all that fits', () =>
    check(
      fc.record({
        room: fc.integer({ min: 0, max: 12 }),
        swap: fc.integer({ min: 0, max: 4 }),
        sure: fc.boolean(),
        i: fc.nat(3)
      }),
      ({ room, swap, sure, i }) => {
        const available = { bytes: room * 1e9, most: (room + swap) * 1e9, sure }
        const wanted = needs[i]!.bytes
        const found = memoryIssue(wanted, needs, available)
        assert.equal(found === undefined, wanted + workBytes <= available.bytes)
        if (!found) return
        assert.equal(found.isSure, sure && wanted + workBytes > available.most)
        const { message } = found.issue
        for (const { name, bytes } of needs.slice(i + 1)) {
          const fits = bytes + workBytes <= available.bytes
          const last = name === '4bit' && message.includes('nothing fits')
          assert.equal(message.includes(` ${name} needs`), fits || last, message)
        }
      },
      100
    ))

  it('nothing is read then, unless it is forced', () =>
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

describe('weights that other software quantized', () => {
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

  it('is refused with what to do instead, wherever the note stands; MXFP4 and what says nothing are not', () =>
    withModel(modelJson('qwen2'), async (folder) => {
      const says = /config\.json: its weights are quantized by (\S+),.*unquantized, with --quantize (int8|4bit)/
      const cases = [
        [{ quant_method: 'bitsandbytes', load_in_4bit: true, bnb_4bit_quant_type: 'nf4' }, 'bitsandbytes', '4bit'],
        [{ quant_method: 'bitsandbytes', load_in_8bit: true }, 'bitsandbytes', 'int8'],
        [{ load_in_8bit: true }, 'bitsandbytes', 'int8'],
        [{ quant_method: 'awq', bits: 4, group_size: 128 }, 'AWQ', '4bit'],
        [{ quant_method: 'gptq', bits: 8 }, 'GPTQ', 'int8'],
        [{ quant_method: 'fp8' }, 'fp8', '4bit']
      ] as const
      for (const part of [undefined, 'text_config'])
        for (const [note, method, bits] of cases)
          assert.deepEqual(says.exec(await refusal(folder, note, part))?.slice(1), [method, bits])
      assert.equal(await refusal(folder, { quant_method: 'mxfp4' }), 'fine')
      assert.equal(await refusal(folder, {}), 'fine')
      assert.match(await refusal(folder, { library: 'internvl-tfjs', version: 2 }), /version 2, this release reads 1/)
    }))
})
