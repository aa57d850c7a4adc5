import { setImmediate as breathe } from 'node:timers/promises'
import { tf } from '../../lib/tf.js'
import type { InternVL } from '../../models/internvl/internvl.js'
import { advance, type Batch, disposeCache, type Forward, type RowCache, rowCache, selectRows } from './batch-cache.js'
import { type GenerateOptions, isSampling } from './generation-options.js'
import type { Generation, GenerationResult, Plan, Step } from './generation-plan.js'
import { logSoftmax } from './logits-processors.js'
import { topIndices } from './logits-warpers.js'
import { type GenerateInputs, prefill } from './prefill.js'
import { type Chance, chance, draw } from './sampling.js'
import type { FinishReason, Stop } from './stopping.js'

/** A row of the answer on its way. Only the loop below changes it. */
interface Row {
  /** Of the prompt in the inputs. */
  readonly source: number
  readonly promptLength: number
  /** Prompt and answer. */
  readonly ids: number[]
  readonly logprobs: number[]
  chance: Chance
  finish?: FinishReason
}

interface Choice {
  readonly token: number
  readonly logprob?: number
}

const newRows = ({ options: o, prompts, seeds }: Plan): readonly Row[] => {
  const samples = Array.from({ length: o.numReturnSequences ?? 1 }, (_, i) => i)
  return prompts.flatMap((ids, source) =>
    samples.map((sample) => ({
      source,
      promptLength: ids.length,
      ids: [...ids],
      logprobs: [],
      chance: chance(seeds[source]!, sample).after(ids)
    }))
  )
}

/** Reads the prompts, and copies each as often as it has answers. */
const start = (
  model: InternVL,
  inputs: GenerateInputs,
  { options: o, prompts, positions }: Plan,
  rows: readonly Row[]
): Forward => {
  const read = prefill(model, inputs, prompts, positions, o)
  if (rows.length === prompts.length) return read
  const sources = rows.map((row) => row.source)
  const logits = tf.tidy(() => read.logits.gather(tf.tensor1d(sources, 'int32')))
  const batch = selectRows(read.batch, sources)
  read.logits.dispose()
  disposeCache(read.batch.kv)
  return { logits, batch }
}

/** The next token of each row from logits `[B, V]`, which it disposes. Plain greedy search reads B numbers back, no more. */
const choose = async (logits: tf.Tensor2D, rows: readonly Row[], { options: o, process }: Plan): Promise<readonly Choice[]> => {
  const plain = !process && !isSampling(o) && !o.outputLogprobs
  const read = plain ? tf.tidy(() => logits.argMax(-1)) : logits
  const data = await read.data().finally(() => tf.dispose([logits, read]))
  if (plain) return Array.from(data, (token) => ({ token }))
  const V = logits.shape[1]
  return rows.map((row, r) => {
    const raw = data.slice(r * V, (r + 1) * V) as Float32Array
    const processed = process ? process(row.ids, raw, row.promptLength) : raw
    const token = isSampling(o) ? draw(processed, row.chance.uniform()) : topIndices(processed, 1)[0]!
    return o.outputLogprobs ? { token, logprob: logSoftmax(raw)[token]! } : { token }
  })
}

const take = (row: Row, { token, logprob }: Choice, stop: Stop): void => {
  row.ids.push(token)
  if (logprob !== undefined) row.logprobs.push(logprob)
  row.chance = row.chance.after([token])
  const finish = stop(row.ids, row.promptLength)
  if (finish) row.finish = finish
}

const stepOf = (rows: readonly Row[], running: readonly Row[], choices: readonly Choice[], o: GenerateOptions): Step => {
  const at = rows.map((row) => choices[running.indexOf(row)])
  const tokens = at.map((choice) => choice?.token)
  return o.outputLogprobs ? { tokens, logprobs: at.map((choice) => choice?.logprob) } : { tokens }
}

const resultOf = (rows: readonly Row[], o: GenerateOptions, caches: ReadonlyMap<Row, RowCache>): GenerationResult => ({
  sequences: rows.map((row) => row.ids.slice(row.promptLength)),
  finishReasons: rows.map((row) => row.finish ?? 'aborted'),
  ...(o.outputLogprobs ? { logprobs: rows.map((row) => row.logprobs) } : {}),
  ...(o.returnCache && caches.size === rows.length ? { cache: rows.map((row) => caches.get(row)!) } : {})
})

/** The given rows of a batch, which it disposes if they are fewer. */
const keepRows = (batch: Batch, rows: readonly number[]): Batch => {
  if (rows.length === batch.padding.length) return batch
  const kept = selectRows(batch, rows)
  disposeCache(batch.kv)
  return kept
}

/** The forward of each row's last token; disposes the batch. */
const follow = (model: InternVL, batch: Batch, rows: readonly Row[]): Forward => {
  try {
    return advance(
      model,
      batch,
      rows.map((row) => row.ids.at(-1)!)
    )
  } finally {
    disposeCache(batch.kv)
  }
}

/** Every row for itself, greedy or drawn; rows that ended leave the batch. */
export async function* rowByRow(model: InternVL, inputs: GenerateInputs, plan: Plan): Generation {
  const { options: o, stop } = plan
  const rows = newRows(plan)
  const caches = new Map<Row, RowCache>()
  let running = rows
  let now: Forward | undefined
  let result: GenerationResult | undefined
  try {
    if (!o.signal?.aborted) now = start(model, inputs, plan, rows)
    while (now && running.length > 0) {
      const choices = await choose(now.logits, running, plan)
      for (const [i, row] of running.entries()) take(row, choices[i]!, stop)
      await breathe() // TensorFlow blocks the event loop: signals and streams get their turn here
      yield stepOf(rows, running, choices, o)
      if (o.signal?.aborted) for (const row of running) row.finish ??= 'aborted'
      const { batch } = now
      if (o.returnCache) for (const [i, row] of running.entries()) if (row.finish) caches.set(row, rowCache(batch, i, row.ids))
      const open = running.flatMap((row, i) => (row.finish ? [] : [i]))
      running = open.map((i) => running[i]!)
      if (open.length > 0) now = follow(model, keepRows(batch, open), running)
    }
    result = resultOf(rows, o, caches)
    return result
  } finally {
    if (now) disposeCache(now.batch.kv)
    if (!result) for (const { kv } of caches.values()) disposeCache(kv)
  }
}
