import assert from 'node:assert/strict'
import { describeGpu, parseGpus } from '../../../lib/engines/gpus.js'

describe('GPUs', () => {
  it('are read from nvidia-smi, lines of errors left out', () => {
    const text = '0, NVIDIA L4, 550.54.15, 23034, 450, 8.9\n1, Tesla T4, 550.54.15, 15360, 0, 7.5\nUnable to determine\n'
    const gpus = parseGpus(text)
    assert.deepEqual(gpus[1], {
      index: 1,
      name: 'Tesla T4',
      driver: '550.54.15',
      memory: 15360,
      usedMemory: 0,
      computeCapability: '7.5'
    })
    assert.deepEqual(gpus.map(describeGpu), [
      'NVIDIA L4, 24.2 GB, driver 550.54.15, compute capability 8.9',
      'Tesla T4, 16.1 GB, driver 550.54.15, compute capability 7.5'
    ])
  })
})
