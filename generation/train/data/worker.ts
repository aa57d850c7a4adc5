import { parentPort, workerData } from 'node:worker_threads'
import * as E from 'fp-ts/lib/Either.js'
import { loadProcessor } from '../../../processors/processor.js'
import { importMaker, makeSamples, type SampleBatch } from './sample-maker.js'

// Worker thread of `prefetch`: receives `{ id, specs }`, sends `{ id, batch }`. Buffers are transferred, not copied.

/** Data that a worker thread starts with. */
export interface WorkerInput {
  /** Checkpoint folder of the processor. */
  readonly model: string
  /** URL of the module that exports `makeSample`. */
  readonly maker: string
}

const buffersOf = ({ prepared }: SampleBatch): ArrayBuffer[] => [
  ...new Set(
    prepared
      .flatMap(({ sample, rejected }) => (rejected ? [sample, rejected] : [sample]))
      .flatMap(({ ids, labels, pixels }) => [ids.buffer, labels.buffer, pixels.buffer] as ArrayBuffer[])
  )
]

const { model, maker } = workerData as WorkerInput
const processor = loadProcessor(model)()
const makeSample = importMaker(maker)
const port = parentPort!

port.on('message', async ({ id, specs }: { readonly id: number; readonly specs: readonly unknown[] }) => {
  const loaded = await processor
  const batch = E.isLeft(loaded)
    ? { prepared: [], issues: loaded.left }
    : await makeSamples(await makeSample, loaded.right, specs)
  port.postMessage({ id, batch }, buffersOf(batch))
})
