import { join } from 'node:path'
import type { Flags } from './flags.js'
import type { Job, Kind, Measured } from './measure/measure.js'
import { ggufTypes, type PrecisionName, transformersDtype } from './measure/precisions.js'
import { checkLlamaCpp, ggufOf, llamaModules } from './peers/llamacpp.js'
import { peftPython, python, workshop } from './peers/python.js'
import { llamaCpp, ours, oursTraining, peftTraining, transformers } from './processes.js'
import { checkpointName } from './report/history.js'
import { type Result, ratios, summarize } from './report/summary.js'
import { caseName } from './report/table.js'

/** One that is measured, and the name of the one that it is compared with. */
interface Contender {
  readonly name: string
  readonly rival?: string
  readonly run: () => Promise<Measured>
}

/** Contenders that take turns at one size of one checkpoint. */
export interface Contest {
  readonly checkpoint: string
  readonly kind: Kind
  readonly size: number
  readonly contenders: readonly Contender[]
}

const PROMPT = 320 // tokens, as one tile and 64 words

const unique = (contenders: readonly Contender[]): readonly Contender[] =>
  contenders.filter(({ name }, i) => contenders.findIndex((other) => other.name === name) === i)

/** Each precision, followed by Transformers where that is asked for and not there yet. */
const withTransformers = (jobs: readonly Job[], compare: boolean): readonly Contender[] =>
  unique(
    jobs.flatMap((job) => {
      const rival = `transformers ${transformersDtype(job.precision)}`
      const own = { name: job.precision, run: () => ours(job) }
      return compare
        ? [
            { ...own, rival },
            { name: rival, run: () => transformers(job) }
          ]
        : [own]
    })
  )

/** Each precision that llama.cpp has, followed by it. */
const withLlamaCpp = (jobs: readonly Job[]): readonly Contender[] =>
  jobs.flatMap((job) => {
    const type = ggufTypes[job.precision]
    if (!type) return []
    const rival = `llama.cpp ${type}`
    const theirs = async () => llamaCpp(llamaModules(), await ggufOf(job.checkpoint, type), type, job)
    return [
      { name: job.precision, rival, run: () => ours(job) },
      { name: rival, run: theirs }
    ]
  })

/** Training steps that a process takes. */
export const stepsOf = ({ steps = 4 }: Flags): number => steps

/** Training steps for every number of rows, each followed by PEFT's where that is asked for. */
const trainings = (flags: Flags): readonly Contest[] =>
  flags.checkpoint.flatMap((checkpoint) =>
    (flags.batch ?? [1]).map((size) => {
      const job = { checkpoint, size, steps: stepsOf(flags), adapter: join(workshop, 'adapters', checkpointName(checkpoint)) }
      const own = { name: 'ours', run: () => oursTraining(job) }
      const theirs = { name: 'peft', run: () => peftTraining(job) }
      return { checkpoint, kind: 'train', size, contenders: flags.compare ? [{ ...own, rival: theirs.name }, theirs] : [own] }
    })
  )

/** What flags ask for: tiles, lengths and batches; one tile where nothing is asked. */
const casesOf = ({ load, tiles, context, batch, llamacpp }: Flags): ReadonlyArray<readonly [Job['kind'], number]> => {
  if (load) return [['load', 1]]
  const asked = { tiles, context, batch }
  const cases = (['tiles', 'context', 'batch'] as const).flatMap((kind) =>
    (asked[kind] ?? []).map((size) => [kind, size] as const)
  )
  return cases.length > 0 || llamacpp ? cases : [['tiles', 1]]
}

/** Everything to measure. Throws a `RangeError` for what is not installed, before anything is measured. */
export const contestsOf = (flags: Flags): readonly Contest[] => {
  const { checkpoint: checkpoints, precision, newTokens, runs, compare = false, llamacpp = false } = flags
  if (compare) flags.train ? peftPython() : python()
  if (flags.train) return trainings(flags)
  if (llamacpp && !precision.some((name) => ggufTypes[name]))
    throw new RangeError(`--llamacpp: compared are int8 and 4bit; --precision is ${precision.join(',')}`)
  if (llamacpp) checkLlamaCpp(checkpoints)
  return checkpoints.flatMap((checkpoint) => {
    const jobs = (kind: Job['kind'], size: number) =>
      precision.map((name: PrecisionName): Job => ({ checkpoint, precision: name, kind, size, newTokens, runs }))
    const contests = casesOf(flags).map(([kind, size]) => ({
      checkpoint,
      kind,
      size,
      contenders: withTransformers(jobs(kind, size), compare)
    }))
    const decoders = { checkpoint, kind: 'context' as const, size: PROMPT, contenders: withLlamaCpp(jobs('context', PROMPT)) }
    return llamacpp ? [...contests, decoders] : contests
  })
}

/** Measures in turn, first of every round the same: a machine whose speed drifts is fair to all. `say` hears of each process. */
export const hold = async (contest: Contest, rounds: number, say: (line: string) => void): Promise<readonly Result[]> => {
  const { contenders, kind, size } = contest
  const measured = contenders.map((): Measured[] => [])
  for (let round = 1; round <= rounds; round++)
    for (const [i, { name, run }] of contenders.entries()) {
      say(`${caseName(kind, size)}, ${name}${rounds > 1 ? `, round ${round} of ${rounds}` : ''}`)
      measured[i]!.push(await run())
    }
  const results = measured.map((all) => summarize(all, kind, size))
  return results.map((result, i) => {
    const other = results[contenders.findIndex(({ name }) => name === contenders[i]!.rival)]
    return other ? { ...result, versus: { engine: other.engine, dtype: other.dtype, ratio: ratios(result, other) } } : result
  })
}
