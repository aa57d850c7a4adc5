import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { accumulate, accumulateEach } from '../../../lib/autograd/grad.js'
import { allReduceTree, treeReduction } from '../../../lib/distributed/buckets.js'
import { freePorts, joinWorkers } from '../../../lib/distributed/index.js'
import { parameterHash } from '../../../lib/distributed/worker-group.js'
import { selectEngine } from '../../../lib/engines/index.js'
import { orThrow } from '../../../lib/error.js'
import { disposeParams } from '../../../lib/params.js'
import { tf } from '../../../lib/tf.js'

// Gradients of two processes, summed after the backward pass and while it goes on: `npx tsx properties/bench/measure/overlap.ts [layers] [rows] [steps]`

const script = fileURLToPath(import.meta.url)
const width = 1024

const median = (numbers: readonly number[]): number => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)]!

const worker = async (rank: number, addresses: readonly string[], layers: number, rows: number, steps: number) => {
  const group = await orThrow(joinWorkers({ addresses, rank }))
  await selectEngine()
  const params = Array.from({ length: layers }, (_, i) => tf.randomNormal<tf.Rank.R2>([width, width], 0, 0.03, 'float32', i + 1))
  const x = tf.randomNormal<tf.Rank.R2>([rows, width], 0, 1, 'float32', 100 + rank)
  const layer = (h: tf.Tensor2D, weight: tf.Tensor2D): tf.Tensor2D => tf.matMul<tf.Tensor2D>(h, weight).tanh()
  const loss = () => (weights: typeof params) => weights.reduce(layer, x).square().mean() as tf.Scalar
  const weightOf = () => 1
  const after = async () => {
    const { value, grads } = accumulate([x], weightOf, loss, 2)(params)
    value.dispose()
    const start = performance.now()
    return { sums: await allReduceTree(group, grads), start }
  }
  const during = async () => {
    const { add, sums } = treeReduction(group, params)
    accumulateEach([x], weightOf, loss, 2, (path, leaf) => add(path, tf.keep(leaf)))(params).dispose()
    const start = performance.now()
    return { sums: await sums(), start }
  }
  const times = { after: [] as number[], afterWaiting: [] as number[], during: [] as number[], duringWaiting: [] as number[] }
  const hashes = new Set<string>()
  for (let step = 0; step < steps; step++)
    for (const [name, run] of [
      ['after', after],
      ['during', during]
    ] as const) {
      // biome-ignore format: one line
      await group.barrier()
      const begin = performance.now()
      const { sums, start } = await run()
      times[name].push((performance.now() - begin) / 1000)
      times[`${name}Waiting`].push((performance.now() - start) / 1000)
      hashes.add(parameterHash(sums))
      disposeParams(sums)
    }
  const seconds = Object.fromEntries(Object.entries(times).map(([name, all]) => [name, Number(median(all).toFixed(3))]))
  console.log(JSON.stringify({ rank, ...seconds, isEqual: hashes.size === 1 }))
}

const [, , ...args] = process.argv
if (args[0] === 'worker') await worker(Number(args[1]), args[2]!.split(','), Number(args[3]), Number(args[4]), Number(args[5]))
else {
  const [layers = '24', rows = '128', steps = '5'] = args
  const addresses = (await freePorts(2)).map((port) => `127.0.0.1:${port}`).join(',')
  for (const rank of ['0', '1']) {
    const env = { ...process.env, TF_NUM_INTRAOP_THREADS: '1', OMP_NUM_THREADS: '1' }
    spawn(process.execPath, ['--import', 'tsx', script, 'worker', rank, addresses, layers, rows, steps], {
      stdio: 'inherit',
      env
    })
  }
}
