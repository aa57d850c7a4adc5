import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { demoModel } from '../../generation/checkpoint/load.js'
import { convert } from '../../generation/checkpoint/save.js'
import { tf } from '../../lib/tf.js'
import { checkStored } from './contest.js'
import type { Flags } from './flags.js'
import { measure } from './measure/measure.js'
import { storedQuantization } from './measure/precisions.js'

describe('bench of a folder with quantized weights', () => {
  let root: string
  let quantized: string
  before(async () => {
    root = await mkdtemp(join(tmpdir(), 'stored '))
    quantized = join(root, 'demo-int4')
    await convert(demoModel, quantized, { layout: 'hf', quantize: 'int4' })
  })
  after(() => rm(root, { recursive: true }))

  const flags = (some: Partial<Flags>): Flags => {
    const defaults = { precision: ['int4'] as const, newTokens: 2, runs: 1, rounds: 1 }
    return { ...defaults, checkpoint: [demoModel, quantized], ...some }
  }

  it('is measured as stored, and leaves no tensor', async () => {
    assert.deepEqual(await Promise.all([demoModel, quantized, join(root, 'none')].map(storedQuantization)), [
      undefined,
      'int4',
      undefined
    ])
    const before = tf.memory().numTensors
    const { dtype, samples } = await measure({
      ...{ checkpoint: quantized, precision: 'int4', kind: 'tiles', size: 1 },
      ...{ newTokens: 2, runs: 1 }
    })
    assert.ok(dtype === 'int4' && samples.decode_tokens_per_s![0]! > 0)
    assert.equal(tf.memory().numTensors, before)
    await checkStored(flags({}))
  })

  it('is refused in another precision and beside other engines, which read the original folder only', async () => {
    await assert.rejects(
      checkStored(flags({ precision: ['int4', 'int8'] })),
      /--precision int8: .*demo-int4 has quantized weights/
    )
    for (const name of ['compare', 'llamacpp', 'openvino', 'train', 'quality'] as const) {
      await assert.rejects(checkStored(flags({ [name]: true })), new RegExp(`--${name}: .*demo-int4.*original folder`))
      await checkStored(flags({ [name]: true, checkpoint: [demoModel] }))
    }
  })
})
