import { Worker } from 'node:worker_threads'
import { InternVLError, type Issue, type Issues, issue, orThrow } from '../../../lib/error.js'
import { loadProcessor } from '../../../processors/processor.js'
import { type Prepared, type PreparedBatch, prepareBatch, type Recipe } from './prepare.js'

export interface PrefetchOptions {
  /** Folder of the checkpoint whose processor makes the samples. */
  readonly model: string
  /** Threads that make samples; 0 makes them in this one, when they are asked for. 1 unless given. */
  readonly workers?: number
  /** Batches that are made, or being made, before they are asked for; 4 unless given. */
  readonly ahead?: number
  /** Leave out samples that can't be made, and go on. */
  readonly skipBad?: boolean
}

/** Batches of samples in the order of their recipes, made while the caller is at work. */
export interface Prefetched extends AsyncIterable<readonly Prepared[]> {
  /** Milliseconds that the caller stood waiting so far; the first batch's are `firstMs`, for nothing can be ready then. */
  readonly waited: () => { readonly firstMs: number; readonly laterMs: number }
  /** What was wrong with samples that were left out. */
  readonly skipped: () => readonly Issue[]
}

type Make = (recipes: readonly Recipe[]) => Promise<PreparedBatch>

interface Maker {
  readonly make: Make
  readonly close: () => Promise<unknown>
}

/** This file's neighbour: compiled in the package, its source in a checkout. */
const startWorker = (model: string): Worker => {
  const file = /\.ts(\?|$)/.test(import.meta.url) ? './worker-source.js' : './worker.js'
  return new Worker(new URL(file, import.meta.url), { workerData: model, execArgv: [] })
}

/** A thread that makes samples, one batch after another. */
const threadMaker = (model: string): Maker => {
  const worker = startWorker(model)
  const waiting = new Map<number, { readonly done: (batch: PreparedBatch) => void; readonly failed: (error: Error) => void }>()
  let [asked, dead] = [0, undefined as Error | undefined]
  const fail = (why: string): void => {
    dead ??= new InternVLError([issue('Worker', `A thread that prepares samples ended: ${why}.`)])
    for (const { failed } of waiting.values()) failed(dead)
    waiting.clear()
  }
  worker.on('message', ({ id, batch }: { readonly id: number; readonly batch: PreparedBatch }) => {
    waiting.get(id)?.done(batch)
    waiting.delete(id)
  })
  worker.on('error', (error) => fail(error.message))
  worker.on('exit', (code) => fail(`exit code ${code}`))
  const make: Make = (recipes) =>
    new Promise((done, failed) => {
      if (dead) return failed(dead)
      const id = asked++
      waiting.set(id, { done, failed })
      worker.postMessage({ id, recipes })
    })
  return { make, close: () => worker.terminate() }
}

const ownMaker = (model: string): Maker => {
  const loaded = orThrow(loadProcessor(model))
  loaded.catch(() => undefined) // it is told when a batch is made
  return { make: async (recipes) => prepareBatch(await loaded, recipes), close: async () => undefined }
}

/**
 * Makes the samples of each batch of recipes, in threads, `ahead` of the caller; batches come in the order of `order`, whichever
 * was ready first. A batch that cannot be made throws an `InternVLError` with all its errors; with `skipBad` it comes without the
 * bad samples, and may be empty. The threads end with the loop, however it ends.
 *
 * `for await (const prepared of prefetch(recipes, { model: internvl.dir })) step(batchOf(prepared.map(({ sample }) => sample), …))`
 */
export const prefetch = (order: Iterable<readonly Recipe[]>, options: PrefetchOptions): Prefetched => {
  const { model, workers = 1, ahead = 4, skipBad = false } = options
  if (!Number.isInteger(workers) || workers < 0)
    throw new RangeError(`prefetch: workers is a whole number from 0 on, got ${workers}`)
  if (!Number.isInteger(ahead) || ahead < 1) throw new RangeError(`prefetch: ahead is a whole number from 1 on, got ${ahead}`)
  const skipped: Issue[] = []
  const waited = { firstMs: 0, laterMs: 0 }
  const sound = ({ prepared, issues }: PreparedBatch): readonly Prepared[] => {
    if (issues.length > 0 && !skipBad) throw new InternVLError(issues as unknown as Issues)
    skipped.push(...issues)
    return prepared
  }
  async function* run(): AsyncGenerator<readonly Prepared[]> {
    const makers = workers === 0 ? [ownMaker(model)] : Array.from({ length: workers }, () => threadMaker(model))
    const pending: Promise<PreparedBatch>[] = []
    let [started, first] = [0, true]
    const recipes = order[Symbol.iterator]()
    const fill = (): void => {
      while (pending.length < (workers === 0 ? 1 : ahead)) {
        const next = recipes.next()
        if (next.done) return
        const batch = makers[started++ % makers.length]!.make(next.value)
        batch.catch(() => undefined) // it is told when its turn comes
        pending.push(batch)
      }
    }
    try {
      for (fill(); pending.length > 0; fill()) {
        const begun = performance.now()
        const batch = await pending.shift()!
        waited[first ? 'firstMs' : 'laterMs'] += performance.now() - begun
        first = false
        const prepared = sound(batch)
        if (workers > 0) fill() // before the caller is at work, for then no message is sent
        yield prepared
      }
    } finally {
      recipes.return?.()
      await Promise.all(makers.map(({ close }) => close()))
    }
  }
  return { [Symbol.asyncIterator]: run, waited: () => ({ ...waited }), skipped: () => skipped }
}
