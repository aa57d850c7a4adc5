import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { load } from '../../../../generation/checkpoint/load.js'
import { generateAll } from '../../../../generation/decoding/generate.js'
import { selectEngine } from '../../../../lib/engines/index.js'
import { tf } from '../../../../lib/tf.js'
import { readNumbers } from '../../../conformance/case.js'
import { storedInputs } from '../../../conformance/reference-inputs.js'
import { type RecordedOp, recordOps } from './recorded-ops.js'
import { withTensorflowKernels } from './with-tensorflow-kernels.js'

/** Kernels for GPUs in TensorFlow's CUDA build, by op: types of attributes, and arguments in host memory. Written by cuda_kernels.py. */
type CudaKernels = Readonly<
  Record<string, ReadonlyArray<readonly [types: Readonly<Record<string, readonly string[]>>, host: readonly string[]]>>
>

const cudaKernels = JSON.parse(readFileSync(new URL('./cuda-kernels.json', import.meta.url), 'utf8')) as CudaKernels
const folderOf = (name: string): string => fileURLToPath(new URL(`../../../conformance/relatives/${name}`, import.meta.url))
const dense = 'sensenova-si/checkpoint-original'
const mixture = 'interns1-moe/checkpoint'

/** Whether the CUDA build has a kernel for an executed op: an attribute that is left out has its default. */
const hasCudaKernel = ({ name, types }: RecordedOp): boolean =>
  (cudaKernels[name] ?? []).some(([allowed]) =>
    Object.entries(allowed).every(([key, list]) => !types[key] || list.includes(types[key]!))
  )

describe('kernels of TensorFlow’s own ops, on a GPU', () => {
  let recorded: ReturnType<typeof recordOps>
  before(async function () {
    if ((await selectEngine()).name !== 'native') return this.skip()
    recorded = recordOps()
  })
  withTensorflowKernels()
  after(() => recorded?.restore())

  for (const [checkpoint, options] of [
    [dense, { dtype: 'float32' }],
    [dense, { dtype: 'bfloat16' }],
    [dense, { dtype: 'float16' }],
    [dense, { quantize: 'int8' }],
    [dense, { quantize: 'int4' }],
    [mixture, { dtype: 'float32' }],
    [mixture, { dtype: 'bfloat16' }]
  ] as const)
    it(`an answer of ${checkpoint.split('/')[0]} in ${Object.values(options)[0]} runs ops that have a CUDA kernel for their types, and weights stay on the device`, async () => {
      const internvl = await load(folderOf(checkpoint), options)
      const inputs = storedInputs(await readNumbers(join(folderOf(checkpoint), '../one-image.safetensors')))
      recorded.clear()
      await generateAll(internvl.model, inputs, { maxNewTokens: 4 })
      const filters = { topP: 0.9, minP: 0.01, repetitionPenalty: 1.1, frequencyPenalty: 0.1 }
      await generateAll(internvl.model, inputs, { doSample: true, ...filters, topLogprobs: 2, maxNewTokens: 2 })
      const counts = recorded.ops.length
      assert.ok(counts > 100, `${counts} ops`)
      const productTypes = new Set(recorded.ops.flatMap(({ name, types }) => (name === 'BatchMatMulV2' ? [types.T] : [])))
      if ('dtype' in options) assert.ok(productTypes.has(options.dtype))
      if (Object.values(options)[0] === 'float16') assert.ok(!productTypes.has('bfloat16'))
      const without = new Set(
        recorded.ops.filter((op) => !hasCudaKernel(op)).map(({ name, types }) => `${name} ${JSON.stringify(types)}`)
      )
      assert.deepEqual([...without], [])
      // int32 lives in host memory: only shapes, ids and rows may be int32, and packed weights as bits that are not computed with
      const large = recorded.ops.filter(({ name, mostInt32 }) => mostInt32 > 1024 && name !== 'Bitcast')
      assert.deepEqual(large, [])
      tf.dispose(Object.values(inputs))
      internvl.dispose()
    })
})
