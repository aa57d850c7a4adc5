import { spawn } from 'node:child_process'
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { freePorts, joinWorkers } from '../../../lib/distributed/index.js'
import { selectEngine } from '../../../lib/engines/index.js'
import { orThrow } from '../../../lib/error.js'
import { random } from '../../../lib/random.js'
import { tf } from '../../../lib/tf.js'

// Time of the all-reduce between processes of this machine, and a simulation of training with up to 64 workers from it:
// `npx tsx properties/bench/measure/collectives.ts [compute seconds of a step on one worker] [MB of gradients] [MB/s of the network]`

const megabytes = [0.001, 1, 4, 16]
const script = fileURLToPath(import.meta.url)

const median = (numbers: readonly number[]): number => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)]!

/** One worker: the median time of the all-reduce for each size. Worker 0 prints the seconds. */
const measure = async (rank: number, addresses: readonly string[]): Promise<void> => {
  const group = await orThrow(joinWorkers({ addresses, rank }))
  await selectEngine()
  const seconds: number[] = []
  for (const size of megabytes) {
    const x = tf.ones([Math.round((size * 2 ** 20) / 4)])
    const times: number[] = []
    for (let i = 0; i < 12; i++) {
      const start = performance.now()
      const sum = await group.allReduce(x)
      times.push((performance.now() - start) / 1000)
      sum.dispose()
    }
    x.dispose()
    seconds.push(median(times.slice(2)))
  }
  if (rank === 0) console.log(JSON.stringify(seconds))
}

/** Seconds of the all-reduce for each size, by `count` processes. */
const measured = async (count: number): Promise<readonly number[]> => {
  const addresses = (await freePorts(count)).map((port) => `127.0.0.1:${port}`).join(',')
  const outputs = Array.from({ length: count }, (_, rank) => {
    const child = spawn(process.execPath, ['--import', 'tsx', script, 'worker', String(rank), addresses], {
      stdio: ['ignore', 'pipe', 'inherit']
    })
    let text = ''
    child.stdout.on('data', (chunk) => {
      text += chunk
    })
    return new Promise<string>((done) => child.once('close', () => done(text)))
  })
  return JSON.parse((await Promise.all(outputs))[0]!)
}

/**
 * Seconds of a step with `workers` workers, the mean of 200 simulated steps. Compute times of workers differ by up to 10 %, and the
 * slowest counts; the ring takes 2 (n − 1) rounds of `latency` and of 1/n of the bytes. Source of the ring's cost: Patarasuk & Yuan 2009.
 */
const simulated = (workers: number, compute: number, bytes: number, bandwidth: number, latency: number): number => {
  const rng = random(1, workers)
  const steps = Array.from({ length: 200 }, () => {
    const times = Array.from({ length: workers }, () => (compute / workers) * rng.uniform(0.95, 1.05))
    const rounds = 2 * (workers - 1)
    return Math.max(...times) + rounds * (latency + bytes / workers / bandwidth)
  })
  return steps.reduce((sum, x) => sum + x, 0) / steps.length
}

if (process.argv[2] === 'worker') {
  await measure(Number(process.argv[3]), process.argv[4]!.split(','))
} else {
  const [compute = 60, gradients = 40, network] = process.argv.slice(2).map(Number)
  console.log(`${cpus()[0]?.model}, ${cpus().length} cores; all-reduce on loopback, median of 10, ms`)
  console.log(`| processes | ${megabytes.map((size) => `${size} MB`).join(' | ')} |\n|${'---|'.repeat(megabytes.length + 1)}`)
  const times = new Map<number, readonly number[]>()
  for (const count of [2, 4]) {
    times.set(count, await measured(count))
    console.log(
      `| ${count} | ${times
        .get(count)!
        .map((s) => (s * 1000).toFixed(1))
        .join(' | ')} |`
    )
  }
  const [two] = [times.get(2)!]
  const latency = two[0]! / 2 // two rounds
  const bandwidth = (network ?? 16 / (two[3]! - two[0]!)) * 2 ** 20 // each process sends the tensor once
  console.log(`\nlatency of a round ${(latency * 1000).toFixed(2)} ms, bandwidth ${(bandwidth / 2 ** 20).toFixed(0)} MB/s`)
  console.log(`simulated: ${compute} s of compute a step in all, ${gradients} MB of gradients`)
  console.log('| workers | step, s | factor | sent by each, MB |\n|---|---|---|---|')
  for (const workers of [1, 2, 4, 8, 16, 32, 64]) {
    const step = simulated(workers, compute, gradients * 2 ** 20, bandwidth, latency)
    const sent = (2 * gradients * (workers - 1)) / workers
    console.log(`| ${workers} | ${step.toFixed(2)} | ${(compute / step).toFixed(1)} | ${sent.toFixed(0)} |`)
  }
}
