import type { Worker } from 'node:worker_threads'
import { startThread } from '../threads/start-thread.js'
import type { WatchInput } from './watch-thread.js'

/**
 * A function that runs a long synchronous computation, during which a thread asks whether the other workers still listen. Where one does not
 * three times in a row, the thread names it on standard error and ends this process: the computation blocks everything else. Outside a
 * computation the operations between workers fail, and workers may end.
 */
export const watchPeers = (addresses: readonly string[], rank: number): (<A>(compute: () => A) => A) => {
  const computation = new Int32Array(new SharedArrayBuffer(4)) // the number of the computation, 0 between two
  let [thread, count] = [undefined as Worker | undefined, 0]
  return (compute) => {
    if (!thread) {
      thread = startThread(new URL('./watch-thread', import.meta.url), { addresses, rank, computation } satisfies WatchInput)
      thread.on('error', ({ message }) => process.stderr.write(`internvl: workers are not watched during a step: ${message}\n`))
      thread.unref()
    }
    count = (count % 2 ** 30) + 1
    Atomics.store(computation, 0, count)
    try {
      return compute()
    } finally {
      Atomics.store(computation, 0, 0)
    }
  }
}
