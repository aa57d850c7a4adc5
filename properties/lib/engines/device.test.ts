import assert from 'node:assert/strict'
import fc from 'fast-check'
import * as E from 'fp-ts/lib/Either.js'
import { deviceOf, deviceVariables, gpuChoice, halfTypeOf, visibleGpus } from '../../../lib/engines/device.js'
import type { Gpu } from '../../../lib/engines/gpus.js'
import type { Loaders } from '../../../lib/engines/index.js'
import { createSelector } from '../../../lib/engines/select.js'

import {
  computeTypes,
  deviceHalfType,
  useHalfType,
  withComputeTypes
} from '../../../lib/engines/tensorflow-kernels/compute-type.js'

const gpu = (index: number, computeCapability = '8.9'): Gpu => ({
  index,
  name: `Card ${index}`,
  driver: '550.54.15',
  memory: 23034,
  usedMemory: 0,
  computeCapability
})

describe('device', () => {
  const list = fc.uniqueArray(fc.nat(15), { minLength: 1, maxLength: 8 })

  it('an index counts in CUDA_VISIBLE_DEVICES, and processes that are started see the same card', () =>
    fc.assert(
      fc.property(list, fc.nat(7), (indices, at) => {
        const env: NodeJS.ProcessEnv = { CUDA_VISIBLE_DEVICES: indices.join(',') }
        if (at >= indices.length) return assert.throws(() => deviceVariables(at, env), /CUDA_VISIBLE_DEVICES=.* lists \d GPUs/)
        const first: NodeJS.ProcessEnv = { ...env, ...deviceVariables(at, env) }
        assert.equal(first.CUDA_VISIBLE_DEVICES, String(indices[at]))
        const gpus = Array.from({ length: 16 }, (_, index) => gpu(index))
        assert.deepEqual(visibleGpus(gpus, first), [gpus[indices[at]!]])
        const again = deviceVariables(deviceOf('INTERNVL_DEVICE', first.INTERNVL_DEVICE), first)
        assert.equal(again.CUDA_VISIBLE_DEVICES, first.CUDA_VISIBLE_DEVICES)
      })
    ))

  it('without a list the index is that of nvidia-smi; cpu hides every card', () => {
    assert.deepEqual(deviceVariables(3, {}), { CUDA_VISIBLE_DEVICES: '3', CUDA_DEVICE_ORDER: 'PCI_BUS_ID', INTERNVL_DEVICE: '0' })
    const env = deviceVariables('cpu', {})
    assert.deepEqual(visibleGpus([gpu(0), gpu(1)], env), [])
    assert.equal(deviceVariables(deviceOf('INTERNVL_DEVICE', env.INTERNVL_DEVICE), env).CUDA_VISIBLE_DEVICES, '-1')
  })

  it('anything but an index or cpu is an error that names the setting', () => {
    assert.equal(deviceOf('device', '2'), 2)
    for (const wrong of ['cuda:0', '-1', '', '1.5', -1, 0.5, null])
      assert.throws(() => deviceOf('device', wrong), { name: 'RangeError', message: /^device: expected the index of a GPU/ })
  })

  it('cards before compute capability 8.0 multiply in float16', () => {
    assert.deepEqual(['7.5', '8.0', '8.9', '10.0', '12.0'].map((computeCapability) => halfTypeOf({ computeCapability })), ['float16', 'bfloat16', 'bfloat16', 'bfloat16', 'bfloat16']) // biome-ignore format: one line
    assert.equal(halfTypeOf(undefined), 'bfloat16')
    const before = deviceHalfType()
    try {
      useHalfType('float16')
      assert.equal(computeTypes().packed, 'float16')
      assert.equal(
        withComputeTypes({ packed: 'float32' }, () => computeTypes().packed),
        'float32'
      )
      assert.equal(computeTypes().packed, 'float16')
    } finally {
      useHalfType(before)
    }
  })

  it('the choice of the build is one sentence that gives the reason', () => {
    const facts = { platform: 'linux-x64', hasCudaBuild: true, hasDriver: true, gpus: [gpu(0), gpu(1)], env: {} }
    const none = { ...facts, gpus: [] }
    for (const [given, expected] of [
      [facts, /^the CUDA build: Card 0 \(0\), Card 1 \(1\)$/],
      [{ ...facts, env: { CUDA_VISIBLE_DEVICES: '1' } }, /^the CUDA build: Card 1 \(1\)$/],
      [{ ...facts, env: { CUDA_VISIBLE_DEVICES: '4' } }, /CUDA_VISIBLE_DEVICES=4 names none of the cards 0, 1/],
      [{ ...facts, env: { CUDA_VISIBLE_DEVICES: '-1' } }, /CPU: CUDA_VISIBLE_DEVICES=-1 hides every GPU/],
      [{ ...facts, env: { INTERNVL_CUDA: '0' } }, /CPU: INTERNVL_CUDA=0/],
      [{ ...facts, env: { INTERNVL_DEVICE: 'cpu' } }, /CPU: it is the requested device/],
      [{ ...none, env: { INTERNVL_CUDA: '1' } }, /CUDA build: INTERNVL_CUDA=1, though no GPU was found/],
      [{ ...facts, platform: 'darwin-arm64', hasCudaBuild: false }, /CPU: TensorFlow has no CUDA build for darwin-arm64/],
      [{ ...none, hasDriver: false }, /CPU: no NVIDIA driver was found/],
      [none, /driver was found, but nvidia-smi lists no card/]
    ] as const)
      assert.match(gpuChoice(given), expected)
  })

  describe('in selectEngine', () => {
    const names = ['INTERNVL_DEVICE', 'CUDA_VISIBLE_DEVICES', 'CUDA_DEVICE_ORDER'] as const
    let saved: NodeJS.ProcessEnv
    let lines: string[]
    const { write } = process.stderr
    beforeEach(() => {
      saved = { ...process.env }
      for (const name of names) delete process.env[name]
      lines = []
      process.stderr.write = (line: string | Uint8Array) => lines.push(String(line)) > 0
    })
    afterEach(() => {
      process.stderr.write = write
      for (const name of names) if (saved[name] === undefined) delete process.env[name]
      Object.assign(process.env, saved)
    })

    const loadersWith = (device: string): Loaders => {
      const loader = async () => E.right({ version: '1', devices: [device] })
      return { native: loader, wasm: loader, cpu: loader }
    }

    it('a requested GPU that TensorFlow does not find is a warning, and another device later an error', async () => {
      const select = createSelector(loadersWith('CPU'))
      await select({ engine: 'native', device: 5 })
      assert.equal(process.env.CUDA_VISIBLE_DEVICES, '5')
      assert.match(lines.join(''), /^internvl: running on the CPU, not on GPU 5: TensorFlow found no GPU/)
      await select({ engine: 'native', device: 5 })
      await assert.rejects(select({ engine: 'native', device: 6 }), /device: 6 was requested after the engine was loaded on 5/)
      assert.equal(lines.length, 1)
    })

    it('INTERNVL_DEVICE says the same; there is no warning on a GPU, nor for cpu', async () => {
      process.env.INTERNVL_DEVICE = '2'
      await createSelector(loadersWith('GPU'))({ engine: 'native' })
      assert.equal(process.env.CUDA_VISIBLE_DEVICES, '2')
      process.env.INTERNVL_DEVICE = 'cpu'
      await createSelector(loadersWith('CPU'))({ engine: 'native' })
      assert.deepEqual([lines, process.env.CUDA_VISIBLE_DEVICES], [[], '-1'])
      process.env.INTERNVL_DEVICE = 'cuda'
      await assert.rejects(
        createSelector(loadersWith('CPU'))({ engine: 'native' }),
        /INTERNVL_DEVICE: expected the index of a GPU/
      )
    })
  })
})
