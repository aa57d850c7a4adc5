import { writeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { workerData } from 'node:worker_threads'
import { isListening } from './is-listening.js'

/** Input of the thread of `watchPeers`. */
export interface WatchInput {
  readonly addresses: readonly string[]
  readonly rank: number
  /** The number of the present computation of the main thread, 0 between two. */
  readonly computation: Int32Array
}

const { addresses, rank, computation } = workerData as WatchInput

/** Failed attempts to connect before a worker counts as gone; an attempt takes at most 2 s, and the next one follows after 1 s. */
const attempts = 3
const pauseMs = 1000

/** Failed attempts in a row of each worker, within one computation. */
const failures = new Map<string, number>()
let watched = 0
for (;;) {
  await sleep(pauseMs)
  const current = Atomics.load(computation, 0)
  if (current !== watched) failures.clear()
  watched = current
  if (current === 0) continue
  const others = addresses.filter((_, i) => i !== rank)
  const answers = await Promise.all(others.map(isListening))
  for (const [i, address] of others.entries()) failures.set(address, answers[i] ? 0 : (failures.get(address) ?? 0) + 1)
  const gone = others.filter((address) => failures.get(address)! >= attempts)
  if (gone.length > 0 && Atomics.load(computation, 0) === watched) {
    const names = gone.map((address) => `worker ${addresses.indexOf(address)} (${address})`).join(', ')
    const advice = 'this worker ends within its step; resume from the last checkpoint'
    writeSync(2, `internvl: training stopped: ${names} no longer answers; ${advice}\n`)
    process.kill(process.pid, 'SIGKILL') // the main thread runs no handler of a signal while it computes
  }
}
