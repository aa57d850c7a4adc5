import { setImmediate as yieldToEventLoop } from 'node:timers/promises'
import { cacheLength } from '../../../models/decoders/decoder.js'
import type { InternVL } from '../../../models/internvl/internvl.js'
import { disposeCache, type ForwardResult, forwardTokens, type RowCache, rowCache } from '../../decoding/batch-cache.js'
import type { GenerateInputs } from '../../decoding/prefill.js'
import type { GenerationResult, GenerationStream, PreparedGeneration, Step } from '../../decoding/prepare-generation.js'
import { appendToken, initialRows, prefillRows, toResult, toStep } from '../../decoding/sampling-loop.js'
import { type SequenceState, tokenSelector } from '../../decoding/selection/token-selector.js'
import { type AsyncQueue, asyncQueue } from '../async-queue.js'
import { joinRows } from './join-rows.js'
import { type TurnQueue, turnQueue } from './turn-queue.js'

/** The rows of one request in the decoding batch. */
interface Member {
  readonly prepared: PreparedGeneration
  readonly rows: readonly SequenceState[]
  unfinished: readonly SequenceState[]
  readonly caches: Map<SequenceState, RowCache>
  readonly steps: AsyncQueue<Step>
}

/** Rows whose next tokens are selected from one forward; the rows of `output` are those of the members' unfinished rows, in order. */
interface Group {
  /** Groups of the same key are joined. */
  readonly key: string
  members: readonly Member[]
  output: ForwardResult
}

/** Counters since the beginning, and sizes now. */
export interface SchedulerCounts {
  readonly rows: number
  readonly positions: number
  readonly steps: number
  readonly decodedRows: number
  readonly turns: number
}

/** Decodes the rows of all requests together: rows join after their prefill and leave at their end, between two steps. */
export interface Scheduler {
  /** Turns of prefills and of searches that have a loop of their own: one of each between two decoding steps. */
  readonly turns: TurnQueue
  /**
   * Greedy search or sampling as `samplingLoop`, its forwards shared with the other requests. `key` names the requests whose rows may
   * be computed together.
   */
  readonly decode: (key: string, inputs: GenerateInputs, prepared: PreparedGeneration) => GenerationStream
  readonly counts: () => SchedulerCounts
}

const openRows = ({ members }: Group): readonly number[] => {
  const rows = members.flatMap((member) => member.unfinished)
  return rows.flatMap((row, i) => (row.finishReason ? [] : [i]))
}

/** Selects the next token of a request's rows, the first of which is row `first` of the logits. */
const stepMember = (
  { prepared, rows, unfinished, steps }: Member,
  first: number,
  select: Awaited<ReturnType<typeof tokenSelector>>
): void => {
  const { options: o, finishReason } = prepared
  try {
    const selected = unfinished.map((row, i) => select(row, first + i))
    for (const [i, row] of unfinished.entries()) appendToken(row, selected[i]!, finishReason)
    steps.push(toStep(rows, unfinished, selected, o))
  } catch (error) {
    for (const row of unfinished) row.finishReason = 'aborted'
    steps.fail(error)
  }
  if (o.signal?.aborted) for (const row of unfinished) row.finishReason ??= 'aborted'
}

/** Selects the next token of every row and copies the caches of rows that end, where they are asked for. */
const stepGroup = async ({ members, output }: Group): Promise<void> => {
  const owners = members.flatMap((member) => member.unfinished.map(() => member))
  const select = await tokenSelector(
    output.logits,
    owners.map(({ prepared }) => prepared),
    { rows: members.flatMap((member) => member.unfinished) }
  )
  for (const member of members) {
    const first = owners.indexOf(member)
    if (first < 0) continue
    stepMember(member, first, select)
    if (!member.prepared.options.returnCache || member.steps.isEnded()) continue
    for (const [i, row] of member.unfinished.entries())
      if (row.finishReason) member.caches.set(row, rowCache(output.batch, first + i, row.ids))
  }
}

/** Groups of one key with their open rows as one group, after the forward of the last tokens; undefined if no row is open. */
const forwardGroups = (model: InternVL, groups: readonly Group[]): Group | undefined => {
  const parts = groups
    .map((group) => ({ batch: group.output.batch, rows: openRows(group) }))
    .filter(({ rows }) => rows.length > 0)
  const members = groups.flatMap((group) => group.members)
  for (const member of members) member.unfinished = member.unfinished.filter((row) => !row.finishReason)
  const open = members.filter(({ unfinished }) => unfinished.length > 0)
  const [only] = parts
  const isSame = groups.length === 1 && only?.rows.length === only?.batch.padding.length
  let batch = isSame ? only?.batch : undefined
  try {
    if (!batch && parts.length > 0) batch = joinRows(parts)
    const tokens = open.flatMap(({ unfinished }) => unfinished.map((row) => row.ids.at(-1)!))
    return batch && { key: groups[0]!.key, members: open, output: forwardTokens(model, batch, tokens) }
  } catch (error) {
    for (const { steps } of open) steps.fail(error)
    return undefined
  } finally {
    if (batch && !isSame) disposeCache(batch.kv)
    for (const { output } of groups) disposeCache(output.batch.kv)
    for (const { steps, unfinished } of members) if (unfinished.length === 0) steps.end()
  }
}

/** A scheduler of one model. Its loop runs while rows are decoded or turns are waited for. */
export const createScheduler = (model: InternVL): Scheduler => {
  let groups: readonly Group[] = []
  const arrived: Group[] = []
  let isRunning = false
  const counts = { steps: 0, decodedRows: 0, turns: 0 }

  /** One decoding step of all rows. */
  const step = async (): Promise<void> => {
    const current = [...groups, ...arrived.splice(0)]
    groups = current // visible to `counts` while the step runs
    const stepped: Group[] = []
    for (const group of current)
      try {
        await stepGroup(group)
        stepped.push(group)
      } catch (error) {
        for (const { steps } of group.members) steps.fail(error)
        disposeCache(group.output.batch.kv)
      }
    const keys = [...new Set(stepped.map(({ key }) => key))]
    groups = keys.flatMap((key) => {
      const next = forwardGroups(
        model,
        stepped.filter((group) => group.key === key)
      )
      counts.decodedRows += next?.output.batch.padding.length ?? 0
      return next ? [next] : []
    })
    if (groups.length > 0) counts.steps++
  }

  const loop = async (): Promise<void> => {
    while (groups.length > 0 || arrived.length > 0 || !turns.isEmpty()) {
      if (groups.length > 0 || arrived.length > 0) await step()
      counts.turns += turns.next()
      await yieldToEventLoop() // the continued prefill computes its chunk here
    }
    isRunning = false
  }
  const wake = (): void => {
    if (isRunning) return
    isRunning = true
    void yieldToEventLoop().then(loop) // requests that arrive together share their first step
  }
  const turns = turnQueue(wake)

  async function* decode(key: string, inputs: GenerateInputs, prepared: PreparedGeneration): GenerationStream {
    const { options: o } = prepared
    const rows = initialRows(prepared)
    const output = o.signal?.aborted ? undefined : await prefillRows(model, inputs, prepared, rows)
    const member: Member = { prepared, rows, unfinished: rows, caches: new Map(), steps: asyncQueue<Step>() }
    let result: GenerationResult | undefined
    try {
      if (output) {
        const type = output.batch.kv[0]?.type ?? ''
        arrived.push({ key: `${type} ${key}`, members: [member], output })
        wake()
        yield* member.steps
      }
      result = toResult(rows, o, member.caches)
      return result
    } finally {
      if (!result) {
        member.steps.end()
        for (const row of rows) row.finishReason ??= 'aborted' // the rows leave at the next step
        for (const { kv } of member.caches.values()) disposeCache(kv)
      }
    }
  }

  return {
    turns,
    decode,
    counts: () => ({
      ...counts,
      rows: groups.reduce((sum, { output }) => sum + output.batch.padding.length, 0),
      positions: Math.max(0, ...groups.map(({ output }) => cacheLength(output.batch.kv)))
    })
  }
}
