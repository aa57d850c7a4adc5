import { setImmediate as breathe } from 'node:timers/promises'
import { tf } from '../lib/tf.js'
import type { InternVL } from '../models/internvl.js'
import {
  advance,
  type Batch,
  disposeCache,
  type Forward,
  type GenerateInputs,
  prefill,
  promptsOf,
  type RowCache,
  rowCache,
  selectRows
} from './cache.js'
import { composed, type LogitsProcessor, logitsProcessors, logSoftmax } from './logits.js'
import { checkOptions, type GenerateOptions, isSampling, newTokensAllowed } from './options.js'
import { type Chance, chance, draw } from './sampler.js'
import { type FinishReason, type Stop, stopRule } from './stop.js'
import { topIndices } from './warpers.js'

export type { GenerateInputs, RowCache } from './cache.js'
export { disposeCache } from './cache.js'
export type { GenerateOptions } from './options.js'
export type { FinishReason } from './stop.js'

/** One step: for every row the token that it got, undefined once it has ended. */
export interface Step {
  readonly tokens: ReadonlyArray<number | undefined>
  /** With `outputLogprobs`. */
  readonly logprobs?: ReadonlyArray<number | undefined>
}

export interface GenerationResult {
  /** New tokens of each row, its end token included. */
  readonly sequences: readonly (readonly number[])[]
  readonly finishReasons: readonly FinishReason[]
  /** With `outputLogprobs`, of each token. */
  readonly logprobs?: readonly (readonly number[])[]
  /** With `returnCache`, one for each row. The caller's, who calls `disposeCache(cache.kv)`. */
  readonly cache?: readonly RowCache[]
}

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

/** What one run does, settled before it begins. */
interface Plan {
  readonly options: GenerateOptions
  readonly prompts: readonly (readonly number[])[]
  readonly processors: readonly LogitsProcessor[]
  readonly stop: Stop
}

const newRows = ({ options: o, prompts }: Plan): readonly Row[] => {
  const seed = o.seed ?? Math.floor(Math.random() * 2 ** 53)
  const samples = Array.from({ length: o.numReturnSequences ?? 1 }, (_, i) => i)
  return prompts.flatMap((ids, source) =>
    samples.map((sample) => ({
      source,
      promptLength: ids.length,
      ids: [...ids],
      logprobs: [],
      chance: chance(typeof seed === 'number' ? seed : seed[source]!, sample).after(ids)
    }))
  )
}

/** Reads the prompts, and copies each as often as it has answers. */
const start = (model: InternVL, inputs: GenerateInputs, { options: o, prompts }: Plan, rows: readonly Row[]): Forward => {
  const read = prefill(model, inputs, prompts, o.cache, o.imageTokenId)
  if (rows.length === prompts.length) return read
  const sources = rows.map((row) => row.source)
  const logits = tf.tidy(() => read.logits.gather(tf.tensor1d(sources, 'int32')))
  const batch = selectRows(read.batch, sources)
  read.logits.dispose()
  disposeCache(read.batch.kv)
  return { logits, batch }
}

/** The next token of each row from logits `[B, V]`, which it disposes. Plain greedy search reads B numbers back, no more. */
const choose = async (
  logits: tf.Tensor2D,
  rows: readonly Row[],
  { options: o, processors }: Plan
): Promise<readonly Choice[]> => {
  const plain = processors.length === 0 && !isSampling(o) && !o.outputLogprobs
  const read = plain ? tf.tidy(() => logits.argMax(-1)) : logits
  const data = await read.data().finally(() => tf.dispose([logits, read]))
  if (plain) return Array.from(data, (token) => ({ token }))
  const V = logits.shape[1]
  const process = composed(processors)
  return rows.map((row, r) => {
    const raw = data.slice(r * V, (r + 1) * V) as Float32Array
    const processed = process(row.ids, raw, row.promptLength)
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
async function* rowByRow(model: InternVL, inputs: GenerateInputs, plan: Plan): AsyncGenerator<Step, GenerationResult, void> {
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

const planOf = (inputs: GenerateInputs, options: GenerateOptions): Plan => {
  checkOptions(options)
  const prompts = promptsOf(inputs)
  const { maxPositionEmbeddings: most = Number.POSITIVE_INFINITY, seed } = options
  const longest = Math.max(...prompts.map((ids) => ids.length))
  if (longest > most) throw new RangeError(`inputIds: the prompt has ${longest} tokens, the model has ${most} positions`)
  if (typeof seed === 'object' && seed.length !== prompts.length)
    throw new RangeError(`seed: ${seed.length} seeds for ${prompts.length} rows`)
  const L = inputs.inputIds.shape[1]
  const allowed = newTokensAllowed(options, L)
  return { options, prompts, processors: logitsProcessors(options, L, allowed), stop: stopRule(options, allowed) }
}

/**
 * Generates one step at a time; the value at the end is all that was made.
 * Throws a `RangeError` that names the option or input at fault. Leaving early (`break`, `return()`) leaks nothing.
 *
 * `for await (const { tokens } of generate(model, inputs, { maxNewTokens: 64, eosTokenIds: [2] })) …`
 *
 * Source: `GenerationMixin.generate` (transformers 5.23).
 */
export const generate = (
  model: InternVL,
  inputs: GenerateInputs,
  options: GenerateOptions = {}
): AsyncGenerator<Step, GenerationResult, void> => rowByRow(model, inputs, planOf(inputs, options))

/** Runs a generator to its end, for its result. */
export const generateAll = async (
  model: InternVL,
  inputs: GenerateInputs,
  options: GenerateOptions = {}
): Promise<GenerationResult> => {
  const steps = generate(model, inputs, options)
  while (true) {
    const { done, value } = await steps.next()
    if (done) return value
  }
}
