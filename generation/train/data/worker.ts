import { parentPort, workerData } from 'node:worker_threads'
import * as E from 'fp-ts/lib/Either.js'
import { loadProcessor } from '../../../processors/processor.js'
import { type PreparedBatch, prepareBatch, type Recipe } from './prepare.js'

// A thread that makes samples: `{ id, recipes }` in, `{ id, batch }` out, whose memory is handed over, not copied.

const buffers = ({ prepared }: PreparedBatch): ArrayBuffer[] => [
  ...new Set(
    prepared
      .flatMap(({ sample, rejected }) => (rejected ? [sample, rejected] : [sample]))
      .flatMap(({ ids, labels, pixels }) => [ids.buffer, labels.buffer, pixels.buffer] as ArrayBuffer[])
  )
]

const loaded = loadProcessor(workerData as string)()
const port = parentPort!

port.on('message', async ({ id, recipes }: { readonly id: number; readonly recipes: readonly Recipe[] }) => {
  const processor = await loaded
  const batch = E.isLeft(processor) ? { prepared: [], issues: processor.left } : await prepareBatch(processor.right, recipes)
  port.postMessage({ id, batch }, buffers(batch))
})
