import * as RA from 'fp-ts/lib/ReadonlyArray.js'
import { InternVLError, type Issue, issue, orThrow } from '../../../lib/error.js'
import { startThread } from '../../../lib/threads/start-thread.js'
import { loadProcessor } from '../../../processors/processor.js'
import { defaultMakerModule, importMaker, makeSamples, type PreparedSample, type SampleBatch } from './sample-maker.js'
import type { WorkerInput } from './worker.js'

export interface PrefetchOptions {
  /** Folder of the checkpoint whose processor makes the samples. */
  readonly model: string
  /** URL of the module that exports the `SampleMaker` as `makeSample`. Default: the maker of dataset rows. */
  readonly maker?: string
  /** Worker threads that make samples; 0 makes each batch in this thread when the batch is requested. Default: 1. */
  readonly workers?: number
  /** Number of batches that are made, or being made, before they are requested. Default: 4. */
  readonly ahead?: number
  /** Skips samples that cannot be made. */
  readonly skipBad?: boolean
}

/** Batches of samples in the order of their specifications, made while the caller works. */
export interface Prefetched extends AsyncIterable<readonly PreparedSample[]> {
  /** Milliseconds that the caller waited: for the first batch, and for all later batches. */
  readonly waited: () => { readonly firstMs: number; readonly laterMs: number }
  /** Errors of the samples that were skipped. */
  readonly skipped: () => readonly Issue[]
}

interface BatchMaker {
  readonly make: (specs: readonly unknown[]) => Promise<SampleBatch>
  readonly close: () => Promise<unknown>
}

/** Makes batches in a worker thread, one after another. */
const threadMaker = (input: WorkerInput): BatchMaker => {
  const worker = startThread(new URL('./worker', import.meta.url), input)
  const waiting = new Map<number, { readonly done: (batch: SampleBatch) => void; readonly failed: (error: Error) => void }>()
  let [requested, failure] = [0, undefined as Error | undefined]
  const fail = (why: string): void => {
    failure ??= new InternVLError([issue('Worker', `A worker thread that makes samples ended: ${why}.`)])
    for (const { failed } of waiting.values()) failed(failure)
    waiting.clear()
  }
  worker.on('message', ({ id, batch }: { readonly id: number; readonly batch: SampleBatch }) => {
    waiting.get(id)?.done(batch)
    waiting.delete(id)
  })
  worker.on('error', (error) => fail(error.message))
  worker.on('exit', (code) => fail(`exit code ${code}`))
  const make = (specs: readonly unknown[]): Promise<SampleBatch> =>
    new Promise((done, failed) => {
      if (failure) return failed(failure)
      const id = requested++
      waiting.set(id, { done, failed })
      worker.postMessage({ id, specs })
    })
  return { make, close: () => worker.terminate() }
}

/** Makes batches in this thread. */
const inlineMaker = ({ model, maker }: WorkerInput): BatchMaker => {
  const loaded = Promise.all([importMaker(maker), orThrow(loadProcessor(model))])
  loaded.catch(() => undefined) // the error is thrown when a batch is made
  return {
    make: async (specs) => {
      const [makeSample, processor] = await loaded
      return makeSamples(makeSample, processor, specs)
    },
    close: async () => undefined
  }
}

/**
 * Makes the samples of each batch of specifications in worker threads, `ahead` of the caller. Batches come in the order of `order`. A
 * batch with a sample that cannot be made throws an `InternVLError` with all errors of the batch; with `skipBad` the batch comes without
 * these samples, and may be empty. The threads end when the loop ends.
 *
 * `for await (const prepared of prefetch(specs, { model: internvl.dir })) step(collate(prepared.map(({ sample }) => sample), …))`
 */
export const prefetch = <S>(order: Iterable<readonly S[]>, options: PrefetchOptions): Prefetched => {
  const { model, maker = defaultMakerModule, workers = 1, ahead = 4, skipBad = false } = options
  if (!Number.isInteger(workers) || workers < 0)
    throw new RangeError(`prefetch: workers must be a whole number of 0 or more, got ${workers}`)
  if (!Number.isInteger(ahead) || ahead < 1)
    throw new RangeError(`prefetch: ahead must be a whole number of 1 or more, got ${ahead}`)
  const skipped: Issue[] = []
  const waited = { firstMs: 0, laterMs: 0 }
  const validSamples = ({ prepared, issues }: SampleBatch): readonly PreparedSample[] => {
    if (!skipBad && RA.isNonEmpty(issues)) throw new InternVLError([issues[0], ...issues.slice(1)])
    skipped.push(...issues)
    return prepared
  }
  async function* run(): AsyncGenerator<readonly PreparedSample[]> {
    const input = { model, maker }
    const makers = workers === 0 ? [inlineMaker(input)] : Array.from({ length: workers }, () => threadMaker(input))
    const pending: Promise<SampleBatch>[] = []
    let [started, isFirst] = [0, true]
    const specs = order[Symbol.iterator]()
    const fill = (): void => {
      while (pending.length < (workers === 0 ? 1 : ahead)) {
        const next = specs.next()
        if (next.done) return
        const batch = makers[started++ % makers.length]!.make(next.value)
        batch.catch(() => undefined) // the error is thrown when this batch is requested
        pending.push(batch)
      }
    }
    try {
      for (fill(); pending.length > 0; fill()) {
        const startTime = performance.now()
        const batch = await pending.shift()!
        waited[isFirst ? 'firstMs' : 'laterMs'] += performance.now() - startTime
        isFirst = false
        const prepared = validSamples(batch)
        if (workers > 0) fill() // before the caller computes: no message is sent while this thread is busy
        yield prepared
      }
    } finally {
      specs.return?.()
      await Promise.all(makers.map(({ close }) => close()))
    }
  }
  return { [Symbol.asyncIterator]: run, waited: () => ({ ...waited }), skipped: () => skipped }
}
