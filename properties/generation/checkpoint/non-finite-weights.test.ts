import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { answer } from '../../../generation/answer.js'
import { demoModel, load } from '../../../generation/checkpoint/load.js'
import { nonFiniteWarning } from '../../../generation/checkpoint/non-finite-weights.js'
import { convert, save } from '../../../generation/checkpoint/save.js'
import { type GenerateOptions, generateAll } from '../../../generation/decoding/generate.js'
import { InternVLError } from '../../../lib/error.js'
import { namedParameters } from '../../../lib/params.js'
import { keepsQuantized, quantize } from '../../../lib/quantization/formats.js'
import { tf } from '../../../lib/tf.js'
import type { InternVL } from '../../../models/internvl/internvl.js'
import { storedFormats } from '../../../models/quantization/quantized-keys.js'
import { inFolder } from '../../models/folders.js'
import { tinyModel } from '../tiny.js'

const isInvalid = (error: unknown): boolean => error instanceof InternVLError && error.issues[0]._tag === 'InvalidLogits'

describe('weights that are NaN or infinite', () => {
  it('in a norm are one warning at load that names the tensor, and an error at the first answer', () =>
    inFolder(async (folder) => {
      const demo = await load()
      const tensors = Object.fromEntries(namedParameters(demo.params))
      const key = 'model.language_model.layers.1.input_layernorm.weight'
      for (const value of [Number.NaN, Number.POSITIVE_INFINITY]) {
        const dir = join(folder, String(value))
        const damaged = tf.tidy(() => tf.concat([tf.tensor1d([value]), tensors[key]!.slice([1]) as tf.Tensor1D]))
        await save(dir, { config: demo.config, tensors: { ...tensors, [key]: damaged }, processorFilesFrom: demo.dir })
        damaged.dispose()
        const warnings: string[] = []
        const internvl = await load(dir, { onWarning: (line) => warnings.push(line) })
        assert.equal(warnings.length, 1)
        assert.ok(warnings[0]!.includes(key) && /NaN or infinite/.test(warnings[0]!), warnings[0])
        const before = tf.memory().numTensors
        await assert.rejects(answer(internvl, [[{ role: 'user', content: 'What?' }]]), isInvalid)
        assert.equal(tf.memory().numTensors, before)
        internvl.dispose()
      }
      const warnings: string[] = []
      const clean = await load(undefined, { onWarning: (line) => warnings.push(line) })
      assert.deepEqual(warnings, [])
      clean.dispose()
      demo.dispose()
    }))

  it('in the scales of int8, int6 and int4 weights are named in the same line', () =>
    fc.assert(
      fc.property(
        fc.constantFrom(...storedFormats),
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 200 }),
        fc.nat(),
        fc.constantFrom(0x7fc0, 0x7f80, 0xff80),
        fc.boolean(),
        (format, rows, columns, at, bits, isSecond) => {
          const weight = quantize(format, tf.randomNormal<tf.Rank.R2>([rows, columns])) as unknown as Record<string, tf.Tensor2D>
          const packed = weight[format]!
          const warningOf = (tensor: tf.Tensor) =>
            nonFiniteWarning('dir', { a: { weight: { [format]: tensor } }, norm: tf.ones([2]) })
          assert.equal(warningOf(packed), undefined)
          const words = Int32Array.from(packed.dataSync())
          const perBlock = packed.shape[1] / Math.ceil(columns / 64)
          const word = (at % (rows * Math.ceil(columns / 64))) * perBlock // blocks follow each other in all rows
          words[word] = isSecond ? (words[word]! & 0xffff) | (bits << 16) : (words[word]! & ~0xffff) | bits
          const damaged = tf.tensor2d(words, packed.shape, 'int32')
          assert.match(String(warningOf(damaged)), new RegExp(`^dir: a\\.weight\\.${format} have values that are NaN`))
          tf.dispose([packed, damaged])
        }
      )
    ))

  it('in a scale of a converted int8 folder are one warning at load', () =>
    inFolder(async (folder) => {
      await convert(demoModel, folder, { layout: 'hf', quantize: 'int8', force: true })
      const file = join(folder, 'model.safetensors')
      const bytes = await readFile(file)
      const headerBytes = Number(bytes.readBigUInt64LE(0))
      const header = JSON.parse(bytes.subarray(8, 8 + headerBytes).toString()) as Record<
        string,
        { readonly data_offsets: readonly number[] }
      >
      const key = Object.keys(header).find((name) => /layers\.1\.mlp\..*\.int8$/.test(name))!
      bytes.writeUInt16LE(0x7fc0, 8 + headerBytes + header[key]!.data_offsets[0]!)
      await writeFile(file, bytes)
      const warnings: string[] = []
      const internvl = await load(folder, { onWarning: (line) => warnings.push(line) })
      internvl.dispose()
      if (keepsQuantized())
        assert.ok(warnings.length === 1 && warnings[0]!.includes(key) && /NaN or infinite/.test(warnings[0]!), warnings.join())
    }))

  const model = tinyModel()
  const modes: Readonly<Record<string, GenerateOptions>> = {
    greedy: {},
    sampling: { doSample: true, seed: 1 },
    beams: { numBeams: 2 },
    'sampled beams': { numBeams: 2, doSample: true, seed: 1 }
  }
  for (const [name, options] of Object.entries(modes))
    it(`${name}: logits that are NaN are an error at any step, and no tensor is left`, async () => {
      const inputs = { inputIds: tf.tensor2d([[2, 3, 4]], [1, 3], 'int32') }
      const before = tf.memory().numTensors
      for (const step of [1, 3]) {
        let calls = 0
        const decode: InternVL['decode'] = (...args) => {
          const output = model.decode(...args)
          return ++calls < step ? output : { ...output, logits: output.logits.mul(Number.NaN) }
        }
        const broken = Object.assign(((...args) => model(...args)) as InternVL, { ...model, decode })
        await assert.rejects(generateAll(broken, inputs, { ...options, maxNewTokens: 6 }), isInvalid)
        assert.equal(calls, step)
        assert.equal(tf.memory().numTensors, before)
        calls = 0
        await generateAll(broken, inputs, { ...options, maxNewTokens: 4, removeInvalidValues: true })
      }
      inputs.inputIds.dispose()
    })
})
