import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { demoModel, load } from '../../../../generation/checkpoint/load.js'
import { save } from '../../../../generation/checkpoint/save.js'
import { disposeCache } from '../../../../generation/decoding/batch-cache.js'
import { generateAll } from '../../../../generation/decoding/generate.js'
import { namedParameters } from '../../../../lib/params.js'
import { tf } from '../../../../lib/tf.js'
import { relativeL2 } from '../../../bench/quality/quality.js'
import { withTensorflowKernels } from './with-tensorflow-kernels.js'

describe('float16 weights with kernels of TensorFlow’s own ops', () => {
  withTensorflowKernels()
  let folder: string
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'float16-'))
  })
  after(() => rm(folder, { recursive: true }))

  const saveIn = async (name: string, { config, params, dir }: Awaited<ReturnType<typeof load>>) => {
    await save(join(folder, name), { config, params, dtype: 'float16', processorFilesFrom: dir })
    return join(folder, name)
  }

  it('stay float16: in half the memory, bit for bit when saved again, with a cache in float16, and logits within 0.5 %', async () => {
    const [original, logits] = [await load(demoModel), new Map<string, Float32Array>()]
    const stored = await saveIn('stored', original)
    original.dispose()
    const before = tf.memory().numTensors
    for (const dtype of ['float32', 'float16'] as const) {
      const internvl = await load(stored, { dtype })
      const halves = namedParameters(internvl.params).filter(([key]) => key.endsWith('.f16'))
      const inputs = { inputIds: tf.tensor2d([5, 6, 7, 8], [1, 4], 'int32') }
      logits.set(
        dtype,
        tf.tidy(() => internvl.model(inputs).logits.dataSync() as Float32Array)
      )
      if (dtype === 'float16') {
        const weight = 'model.language_model.layers.0.mlp.up_proj.weight.f16'
        const found = halves.find(([key]) => key === weight)![1]
        const { hiddenSize, intermediateSize } = internvl.config.textConfig
        assert.deepEqual(found.shape, [intermediateSize, hiddenSize / 2])
        const { cache } = await generateAll(internvl.model, inputs, { returnCache: true, maxNewTokens: 2 })
        assert.equal(cache![0]!.kv[0]!.type, 'float16')
        disposeCache(cache![0]!.kv)
        const again = await saveIn('again', internvl)
        const weights = (dir: string) => readFile(join(dir, 'model.safetensors'))
        assert.ok((await weights(again)).equals(await weights(stored)))
      } else assert.equal(halves.length, 0)
      inputs.inputIds.dispose()
      internvl.dispose()
    }
    assert.equal(tf.memory().numTensors, before)
    const error = relativeL2([logits.get('float16')!], [logits.get('float32')!])
    assert.ok(error > 0 && error < 0.005, String(error))
  })
})
