import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { cp, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { load } from '../../../generation/checkpoint/load.js'
import { convert } from '../../../generation/checkpoint/save.js'
import { orThrow } from '../../../lib/error.js'
import { tf } from '../../../lib/tf.js'
import { openCheckpoint } from '../../../models/checkpoint/open-checkpoint.js'
import { inFolder, readJson } from '../../models/folders.js'

const at = (path: string) => fileURLToPath(new URL(path, import.meta.url))
const [folders, tokenizer] = [at('./folders/'), at('../../conformance/relatives/interns1-mini/checkpoint/')]
/** Folders of the scripts `properties/reference/formats/make_*_folder(s).py`. Their order is that of the methods in docs/checkpoints.md. */
const llmCompressor = ['w4a16', 'w4a16-asym', 'w8a8', 'fp8-dynamic', 'fp8-block'].map((name) => `llmcompressor-${name}`)
const names = ['awq', 'autoawq', 'gptq', 'gptqmodel', 'nf4', 'fp4', 'int8', 'fp8-tensor', 'fp8-block', ...llmCompressor]

/** A folder of the fixtures with a tokenizer, as a published one. */
const publish = async (name: string, to: string): Promise<string> => {
  await cp(join(folders, name), to, { recursive: true })
  const files = ['tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja', 'generation_config.json']
  const isOriginal = (await readJson(to)).model_type === 'internvl_chat'
  for (const file of isOriginal ? files : [...files, 'processor_config.json']) await cp(join(tokenizer, file), join(to, file))
  return to
}

/** Logits of the last position for the inputs of `make_quantized_folders.py`, and those of Transformers with the dequantized weights. */
const logitsOf = async (dir: string, name: string, options: Parameters<typeof load>[1] = {}) => {
  const {
    ids,
    side,
    logits: expected
  } = (await readJson(join(folders, name), 'expected.json')) as {
    ids: number[]
    side: number
    logits: number[]
  }
  const internvl = await load(dir, options)
  const logits = tf.tidy(() => {
    const pixels = Float32Array.from({ length: 3 * side * side }, (_, i) => Math.sin(i * 0.37))
    const inputs = { inputIds: tf.tensor2d([ids], undefined, 'int32'), pixelValues: tf.tensor4d(pixels, [1, 3, side, side]) }
    return Array.from(internvl.model(inputs, { logitsToKeep: 1 }).logits.dataSync())
  })
  internvl.dispose()
  return { logits, expected }
}

const assertClose = ({ logits, expected }: { readonly logits: readonly number[]; readonly expected: readonly number[] }) => {
  const scale = Math.max(...expected.map(Math.abs))
  const worst = Math.max(...logits.map((x, i) => Math.abs(x - expected[i]!)))
  assert.ok(worst < 1e-4 * scale, `${worst} of ${scale}`)
}

describe('folders that other software quantized', () => {
  it('every fixture is tested', async () => assert.deepEqual((await readdir(folders)).sort(), [...names].sort()))

  for (const name of names)
    it(`${name}: logits are those of Transformers with the dequantized weights, also after a conversion`, () =>
      inFolder(async (folder) => {
        const from = await publish(name, join(folder, 'from'))
        assertClose(await logitsOf(from, name))
        const layout = (await readJson(from)).model_type === 'internvl_chat' ? 'hf' : 'original'
        await convert(from, join(folder, 'to'), { layout, dtype: 'float32' })
        assert.equal((await readJson(join(folder, 'to'))).quantization_config, undefined)
        assertClose(await logitsOf(join(folder, 'to'), name))
        await logitsOf(from, name, { quantize: 'int8' })
      }))

  it('autoawq: each weight is the one that AutoAWQ dequantizes, bit for bit', () =>
    inFolder(async (folder) => {
      const from = await publish('autoawq', join(folder, 'from'))
      const { sha256 } = (await readJson(join(folders, 'autoawq'), 'expected.json')) as { sha256: Record<string, string> }
      const { files } = await orThrow(openCheckpoint(from, { imageTokenId: 1 }))
      for (const [key, expected] of Object.entries(sha256)) {
        const entry = files.entries.get(key)!
        assert.equal(entry.dtype, 'F16')
        assert.equal(
          createHash('sha256')
            .update(await files.readBytes(entry))
            .digest('hex'),
          expected,
          key
        )
      }
      await files.close()
    }))

  it('autoawq: the names of the settings in AutoAWQ and at the top of config.json open too', () =>
    inFolder(async (folder) => {
      const from = await publish('autoawq', join(folder, 'from'))
      const { logits } = await logitsOf(from, 'autoawq')
      const { llm_config, ...json } = (await readJson(from)) as { llm_config: { quantization_config?: unknown } }
      const quantization = { quant_method: 'awq', version: 'GEMM', w_bit: 4, q_group_size: 32, zero_point: true }
      const variants = [
        { ...json, llm_config: { ...llm_config, quantization_config: quantization } },
        { ...json, llm_config: { ...llm_config, quantization_config: undefined }, quantization_config: quantization }
      ]
      for (const variant of variants) {
        await writeFile(join(from, 'config.json'), JSON.stringify(variant))
        assert.deepEqual((await logitsOf(from, 'autoawq')).logits, logits)
      }
    }))

  it('a bias of zeros of a layer without bias is left out; other biases are reported', () =>
    inFolder(async (folder) => {
      const from = await publish('gptq', join(folder, 'from'))
      const file = join(from, 'model.safetensors')
      const bytes = await readFile(file)
      const header = JSON.parse(bytes.subarray(8, 8 + Number(bytes.readBigUInt64LE())).toString()) as Record<
        string,
        { data_offsets: [number, number] }
      >
      const key = 'model.language_model.layers.0.mlp.up_proj.bias'
      bytes.writeUInt16LE(0x3c00, 8 + Number(bytes.readBigUInt64LE()) + header[key]!.data_offsets[0]) // 1 in float16
      await writeFile(file, bytes)
      await assert.rejects(load(from), new RegExp(key.replaceAll('.', '\\.')))
    }))
})
