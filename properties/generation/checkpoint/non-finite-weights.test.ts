import assert from 'node:assert/strict'
import { join } from 'node:path'
import { answer } from '../../../generation/answer.js'
import { load } from '../../../generation/checkpoint/load.js'
import { save } from '../../../generation/checkpoint/save.js'
import { type GenerateOptions, generateAll } from '../../../generation/decoding/generate.js'
import { InternVLError } from '../../../lib/error.js'
import { namedParameters } from '../../../lib/params.js'
import { tf } from '../../../lib/tf.js'
import type { InternVL } from '../../../models/internvl/internvl.js'
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
