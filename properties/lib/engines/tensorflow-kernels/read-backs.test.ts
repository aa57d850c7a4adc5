import assert from 'node:assert/strict'
import { join } from 'node:path'
import { generateAll } from '../../../../generation/decoding/generate.js'
import type { GenerateOptions } from '../../../../generation/decoding/generation-options.js'
import { orThrow } from '../../../../lib/error.js'
import { withoutKernels } from '../../../../lib/ops/kernel.js'
import { disposeParams } from '../../../../lib/params.js'
import { tf } from '../../../../lib/tf.js'
import { type LoadedModel, loadModel } from '../../../../models/checkpoint/load-model.js'
import { saveModel } from '../../../../models/checkpoint/save-model.js'
import type { Json } from '../../../../models/config/config-fields.js'
import { relativeL2 } from '../../../bench/quality/quality.js'
import { inFolder, modelJson, smallModel } from '../../../models/folders.js'
import { withTensorflowKernels } from './with-tensorflow-kernels.js'

interface Backend {
  binding: { tensorDataSync(id: number): { readonly length: number } }
}

/** Numbers of elements of the tensors that are read back from TensorFlow while `f` runs. */
const readBacks = async (f: () => Promise<unknown>): Promise<readonly number[]> => {
  const backend = tf.engine().findBackend('tensorflow') as unknown as Backend
  const { binding } = backend
  const sizes: number[] = []
  const tensorDataSync = (id: number) => {
    const data = binding.tensorDataSync(id)
    sizes.push(data.length)
    return data
  }
  backend.binding = Object.create(binding, { tensorDataSync: { value: tensorDataSync } }) as Backend['binding']
  try {
    await f()
    return sizes
  } finally {
    backend.binding = binding
  }
}

/** A small decoder; a mixture sends each token to 2 of 6 experts. */
const jsonOf = (decoder: string): Json => {
  const { text_config, ...json } = modelJson(decoder) as Record<string, Record<string, Json>>
  const experts = { num_experts: 6, num_local_experts: 6, num_experts_per_tok: 2, moe_intermediate_size: 32 }
  return { ...json, text_config: { ...text_config, num_hidden_layers: 2, ...experts } }
}

const withLoaded = (decoder: string, dtype: 'float32' | 'bfloat16', test: (loaded: LoadedModel) => Promise<void>) =>
  inFolder(async (folder) => {
    const { config, params } = smallModel(jsonOf(decoder))
    await orThrow(saveModel(join(folder, 'model'), { config, params }))
    disposeParams(params)
    const before = tf.memory().numTensors
    const loaded = await orThrow(loadModel(join(folder, 'model'), { dtype, imageTokenId: 1 }))
    await test(loaded)
    loaded.dispose()
    assert.equal(tf.memory().numTensors, before)
  })

const sampled = { doSample: true, seed: 1, topP: 0.9, minP: 0.01, repetitionPenalty: 1.1 }

describe('what a decoding step reads back with kernels of TensorFlow’s own ops', () => {
  withTensorflowKernels()

  for (const decoder of ['qwen2', 'qwen3_moe', 'gpt_oss'])
    it(`${decoder}: one tensor of few numbers a row, greedy and sampled, with log-probabilities and without`, () =>
      withLoaded(decoder, 'bfloat16', async ({ model }) => {
        for (const rows of [[[5, 6, 7, 8]], [[5, 6, 7, 8], [9, 10, 11, 12]]]) // biome-ignore format: one line
          for (const options of [{}, sampled, { topLogprobs: 3 }, { ...sampled, outputLogprobs: true }] as GenerateOptions[]) {
            const read = (maxNewTokens: number) => {
              const inputIds = tf.tensor2d(rows, [rows.length, 4], 'int32')
              const generate = () => generateAll(model, { inputIds }, { ...options, maxNewTokens })
              return readBacks(generate).finally(() => inputIds.dispose())
            }
            const [short, long] = [await read(2), await read(6)]
            const { topLogprobs = 0, outputLogprobs = topLogprobs > 0 } = options
            const numbers = 2 + (outputLogprobs ? 1 : 0) + 2 * topLogprobs // token, first logit, log-probabilities
            assert.deepEqual(long.slice(-4), Array(4).fill(rows.length * numbers), JSON.stringify(options))
            assert.equal(long.length - short.length, 4) // one for each further token
          }
      }))

  for (const decoder of ['qwen3_moe', 'gpt_oss'])
    it(`${decoder}: the experts chosen on the device give the logits of those chosen on the host`, () =>
      withLoaded(decoder, 'float32', async ({ model }) => {
        for (const ids of [[5], [5, 9, 30], [7, 8, 9, 10, 11]]) {
          const logits = () => model({ inputIds: tf.tensor2d(ids, [ids.length, 1], 'int32') }).logits.dataSync() as Float32Array
          const [onDevice, onHost] = tf.tidy(() => [logits(), withoutKernels(logits)])
          assert.ok(relativeL2([onDevice], [onHost]) < 1e-5)
        }
      }))

  it('log-probabilities are those of the host', () =>
    withLoaded('qwen2', 'float32', async ({ model }) => {
      const inputIds = tf.tensor2d([5, 6, 7, 8], [1, 4], 'int32')
      const options = { ...sampled, topLogprobs: 3, maxNewTokens: 5 }
      const device = await generateAll(model, { inputIds }, options)
      const host = await generateAll(model, { inputIds }, { ...options, outputLogits: true }) // logits are selected from on the host
      assert.deepEqual(device.sequences, host.sequences)
      for (const [i, logprob] of device.logprobs![0]!.entries()) assert.ok(Math.abs(logprob - host.logprobs![0]![i]!) < 1e-4)
      inputIds.dispose()
    }))
})
