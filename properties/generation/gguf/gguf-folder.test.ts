import assert from 'node:assert/strict'
import { existsSync, readdirSync } from 'node:fs'
import { copyFile, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { inspect } from '../../../generation/checkpoint/inspect.js'
import { load } from '../../../generation/checkpoint/load.js'
import { convert } from '../../../generation/checkpoint/save.js'
import { generateAll } from '../../../generation/decoding/generate.js'
import { ggufFolder } from '../../../generation/gguf/gguf-folder.js'
import { InternVLError, orThrow } from '../../../lib/error.js'
import { tf } from '../../../lib/tf.js'
import { inFolder } from '../../models/folders.js'

const files = fileURLToPath(new URL('./files/', import.meta.url))

interface Expected {
  readonly ids: number[]
  readonly side: number
  readonly logits: readonly number[]
  readonly greedy: readonly number[]
}

/** Logits of `make_llama_cpp.py`. */
interface LlamaCpp {
  readonly ids: number[]
  readonly logits: readonly number[]
  /** With float32 weights. */
  readonly plain: readonly number[]
}

/** The inputs of `make_gguf.py`. */
const inputsOf = ({ ids, side }: Expected) => ({
  inputIds: tf.tensor2d([ids], undefined, 'int32'),
  pixelValues: tf.tensor4d(
    Float32Array.from({ length: 3 * side * side }, (_, i) => Math.sin(i * 0.37)),
    [1, 3, side, side]
  )
})

const rejects = (promise: Promise<unknown>, message: RegExp) =>
  assert.rejects(promise, (error: unknown) => error instanceof InternVLError && message.test(error.message))

describe('models in GGUF', () => {
  for (const name of ['qwen2', 'llama', 'qwen3', 'internlm2', 'qwen3moe', 'phi3', 'gpt-oss', 'q4_k_m', 'q5_k_m'])
    it(`${name}: logits and tokens are those of Transformers with the dequantized weights, also after a conversion`, () =>
      inFolder(async (folder) => {
        const expected = JSON.parse(await readFile(join(files, name, 'expected.json'), 'utf8')) as Expected
        const check = async (model: string): Promise<void> => {
          const internvl = await load(model)
          const inputs = inputsOf(expected)
          const logits = tf.tidy(() => Array.from(internvl.model(inputs, { logitsToKeep: 1 }).logits.dataSync()))
          const scale = Math.max(...expected.logits.map(Math.abs))
          const worst = Math.max(...logits.map((x, i) => Math.abs(x - expected.logits[i]!)))
          assert.ok(worst < 1e-4 * scale, `${worst} of ${scale}`)
          const { sequences } = await generateAll(internvl.model, inputs, { maxNewTokens: 8 })
          assert.deepEqual(sequences, [expected.greedy])
          assert.equal(internvl.processor.decode(internvl.processor.tokenizer.encode('A red circle.')), 'A red circle.')
          tf.dispose(Object.values(inputs))
          internvl.dispose()
        }
        await check(join(files, name, 'model.gguf'))
        const from = await orThrow(ggufFolder(join(files, name, 'model.gguf')))
        await convert(from, join(folder, 'hf'), { layout: 'hf' })
        await check(join(folder, 'hf'))
        const { loads, issues } = await inspect(from)
        assert.ok(loads, JSON.stringify(issues))
        const int8 = await load(join(files, name, 'model.gguf'), { quantize: 'int8' })
        int8.dispose()
      }))

  for (const name of readdirSync(files).filter((folder) => existsSync(join(files, folder, 'llama-cpp.json'))))
    it(`${name}: logits are those of llama.cpp, with quantized weights as far as its 8-bit activations allow`, async () => {
      const stored = JSON.parse(await readFile(join(files, name, 'llama-cpp.json'), 'utf8')) as LlamaCpp
      const internvl = await load(join(files, name, 'model.gguf'))
      const logits = tf.tidy(() => {
        const inputIds = tf.tensor2d([stored.ids], undefined, 'int32')
        return Array.from(internvl.model({ inputIds }, { logitsToKeep: 1 }).logits.dataSync())
      })
      internvl.dispose()
      const distance = (expected: readonly number[]) =>
        Math.hypot(...logits.map((x, i) => x - expected[i]!)) / Math.hypot(...expected)
      assert.ok(distance(stored.plain) < 1e-4, `float32 weights: ${distance(stored.plain)}`)
      assert.ok(distance(stored.logits) < 0.04, `quantized weights: ${distance(stored.logits)}`)
    })

  it('wrong files are reported by name, with what to give instead', () =>
    inFolder(async (folder) => {
      const [model, mmproj] = ['model.gguf', 'mmproj.gguf'].map((name) => join(files, 'qwen2', name)) as [string, string]
      const alone = join(folder, 'alone.gguf')
      await copyFile(model, alone)
      await rejects(load(alone), /alone\.gguf: give the vision tower with --mmproj .*there is none beside it/)
      await rejects(load(mmproj, { mmproj: model }), /mmproj\.gguf: it holds a vision tower, not a language model/)
      await rejects(load(model, { mmproj: alone }), /alone\.gguf: its projector type is none, not internvl/)
      await rejects(load(join(folder, 'none.gguf'), { mmproj }), /none\.gguf/)
      const whole = await readFile(model)
      await writeFile(alone, whole.subarray(0, whole.length - 1000))
      await rejects(load(alone, { mmproj }), /alone\.gguf: the file is cut short, without all of /)
      await writeFile(alone, 'not a model')
      await rejects(load(alone, { mmproj }), /alone\.gguf: it is not a GGUF file/)
      await rejects(load(undefined, { mmproj }), /mmproj: .* is no GGUF file/)
      const created = await stat(await orThrow(ggufFolder(model)))
      assert.equal(created.mode & 0o77, 0)
    }))
})
