import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { bytesOf, type StoredDtype, toFloat32 } from '../../../../lib/dtype.js'
import { orThrow } from '../../../../lib/error.js'
import { disposeParams, namedParameters } from '../../../../lib/params.js'
import type { TensorEntry, TensorFiles } from '../../../../lib/safetensors/read.js'
import { convertModel } from '../../../../models/checkpoint/convert-model.js'
import { loadModel } from '../../../../models/checkpoint/load-model.js'
import { openCheckpoint } from '../../../../models/checkpoint/open-checkpoint.js'
import type { Json } from '../../../../models/config/config-fields.js'
import { dequantizedFiles } from '../../../../models/quantization/foreign/dequantized-files.js'
import { quantizationIssues } from '../../../../models/quantization/foreign-quantization.js'
import { inFolder, modelJson, readJson, smallModel, writeFolder } from '../../folders.js'

interface Quantized {
  readonly config: Json
  readonly tensors: Readonly<
    Record<string, { readonly dtype: StoredDtype; readonly shape: readonly number[]; readonly data: string }>
  >
  readonly dtype: StoredDtype
  /** SHA-256 of the dequantized bytes. */
  readonly expected: string
  readonly first: readonly number[]
}
const cases = JSON.parse(readFileSync(new URL('../../../reference/formats/foreign.json', import.meta.url), 'utf8')) as Record<
  string,
  Quantized
>

/** Files in memory with the tensors of a layer and one more tensor. */
const filesOf = ({ tensors }: Quantized): TensorFiles => {
  const bytes = new Map(Object.entries(tensors).map(([part, { data }]) => [`a.q_proj.${part}`, Buffer.from(data, 'base64')]))
  bytes.set('a.norm.weight', Buffer.alloc(8))
  const entry = (key: string): TensorEntry => {
    const { dtype, shape } = tensors[key.slice('a.q_proj.'.length)] ?? { dtype: 'F32', shape: [2] }
    return { key, dtype, shape, file: 'memory', offset: 0, bytes: bytes.get(key)!.length }
  }
  const readBytes: TensorFiles['readBytes'] = async ({ key }, begin, end) => bytes.get(key)!.subarray(begin, end)
  return {
    entries: new Map([...bytes.keys()].map((key) => [key, entry(key)])),
    metadata: {},
    handles: new Map(),
    readBytes,
    readFloat32: async (one) => toFloat32(await readBytes(one), one.dtype),
    close: async () => {}
  }
}

describe('weights that other software quantized', () => {
  for (const [name, quantized] of Object.entries(cases))
    it(`${name}: dequantized as the original does, bit for bit, whole and in pieces`, async () => {
      const files = await dequantizedFiles(filesOf(quantized), quantized.config)
      assert.deepEqual([...files.entries.keys()].sort(), ['a.norm.weight', 'a.q_proj.weight'])
      const entry = files.entries.get('a.q_proj.weight')!
      assert.equal(entry.dtype, quantized.dtype)
      const whole = await files.readBytes(entry)
      assert.deepEqual(Array.from(toFloat32(whole, entry.dtype).subarray(0, 6)), quantized.first)
      assert.equal(createHash('sha256').update(whole).digest('hex'), quantized.expected)
      const rowBytes = entry.bytes / entry.shape[0]!
      const piece = await files.readBytes(entry, 3 * rowBytes + 8, 7 * rowBytes)
      assert.deepEqual(Buffer.from(piece), Buffer.from(whole.subarray(3 * rowBytes + 8, 7 * rowBytes)))
    })

  it('a folder loads with the weights that it had, and a conversion is an ordinary folder', () =>
    inFolder(async (folder) => {
      const [from, to] = [join(folder, 'from'), join(folder, 'to')]
      const { config, params } = smallModel(modelJson('qwen2')) // weights n / 64 with |n| at most 125
      const all = namedParameters(params).map(([key, leaf]) => ({
        key,
        shape: leaf.shape,
        values: Float32Array.from(leaf.dataSync())
      }))
      disposeParams(params)
      const source = (key: string, dtype: StoredDtype, shape: readonly number[], bytes: Uint8Array) => ({
        key,
        dtype,
        shape,
        bytes: () => bytes
      })
      const tensors = all.flatMap(({ key, shape, values }) => {
        if (!/_proj\.weight$/.test(key)) return [source(key, 'F32', shape, bytesOf(values))]
        const scale = new Float32Array(shape[0]!).fill(1 / 64)
        return [
          source(key, 'I8', shape, bytesOf(Int8Array.from(values, (x) => x * 64))),
          source(`${key}_scale`, 'F32', [shape[0]!, 1], bytesOf(scale))
        ]
      })
      await writeFolder(from, { ...modelJson('qwen2'), quantization_config: { quant_method: 'compressed-tensors', format: 'int-quantized' } }, tensors) // biome-ignore format: one line
      const check = async (dir: string): Promise<void> => {
        const loaded = await orThrow(loadModel(dir))
        const leaves = new Map(namedParameters(loaded.params))
        for (const { key, values } of all) assert.deepEqual(Float32Array.from(leaves.get(key)!.dataSync()), values, key)
        loaded.dispose()
      }
      await check(from)
      const checkpoint = await orThrow(openCheckpoint(from))
      await orThrow(convertModel(checkpoint, to, { layout: 'hf' }))
      await checkpoint.files.close()
      assert.equal((await readJson(to)).quantization_config, undefined)
      await check(to)
      assert.equal(config.textConfig.modelType, 'qwen2')
    }))

  it('variants that are not read are refused with the advice to take the unquantized folder', () => {
    const messageOf = (config: Json) => quantizationIssues({ quantization_config: config }, 'dir').map(({ message }) => message)
    assert.match(messageOf({ quant_method: 'gptq', bits: 3 })[0]!, /quantized by GPTQ.*unquantized/)
    assert.match(messageOf({ quant_method: 'awq', version: 'gemv' })[0]!, /quantized by AWQ/)
    assert.match(messageOf({ quant_method: 'awq', w_bit: 3, version: 'GEMM' })[0]!, /quantized by AWQ/)
    assert.match(messageOf({ quant_method: 'quip' })[0]!, /quantized by quip/)
    assert.deepEqual(messageOf({ quant_method: 'awq', bits: 4, version: 'gemm' }), [])
  })
})
