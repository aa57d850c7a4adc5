import { join } from 'node:path'
import type { Flags } from './flags.js'
import type { Job, Kind, Measured } from './measure/measure.js'
import { ggufTypes, type PrecisionName, storedQuantization, transformersDtype } from './measure/precisions.js'
import { checkLlamaCpp, ggufOf, llamaModules } from './peers/llamacpp.js'
import { checkOpenVino, openvinoCommand, openvinoTypes } from './peers/openvino.js'
import { peftPython, python, workshop } from './peers/python.js'
import { llamaCpp, openvino, ours, oursTraining, peftTraining, transformers } from './processes.js'
import { checkpointName } from './report/bench-history.js'
import { type Result, ratios, summarize } from './report/summary.js'
import { caseName } from './report/table.js'

/** An implementation to measure, and the name of the contender that it is compared with. */
interface Contender {
  readonly name: string
  readonly rival?: string
  readonly run: () => Promise<Measured>
}

/** Contenders measured in turn, at one size of one checkpoint. */
export interface Contest {
  readonly checkpoint: string
  readonly kind: Kind
  readonly size: number
  readonly contenders: readonly Contender[]
}

const PROMPT = 320 // tokens: one tile and 64 words

const unique = (contenders: readonly Contender[]): readonly Contender[] =>
  contenders.filter(({ name }, i) => contenders.findIndex((other) => other.name === name) === i)

/** Every precision, followed by Transformers in the corresponding type when `compare` is set; no contender twice. */
const withTransformers = (jobs: readonly Job[], compare: boolean): readonly Contender[] =>
  unique(
    jobs.flatMap((job) => {
      const rival = `transformers ${transformersDtype(job.precision)}`
      const contender = { name: job.precision, run: () => ours(job) }
      return compare
        ? [
            { ...contender, rival },
            { name: rival, run: () => transformers(job) }
          ]
        : [contender]
    })
  )

/** Every precision that llama.cpp has too, followed by llama.cpp. */
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

/** Every precision that OpenVINO has too for a part of the model, followed by OpenVINO. */
const withOpenVino = (part: keyof typeof openvinoTypes, jobs: readonly Job[]): readonly Contender[] =>
  jobs.flatMap((job) => {
    const type = openvinoTypes[part][job.precision]
    if (!type) return []
    const rival = `OpenVINO ${type}`
    return [
      { name: job.precision, rival, run: () => ours(job) },
      { name: rival, run: async () => openvino(await openvinoCommand(job.checkpoint, part, type, job)) }
    ]
  })

/** Number of training steps in one process. */
export const stepsOf = ({ steps = 4 }: Flags): number => steps

/** Training steps for every batch size, followed by PEFT's when `compare` is set. */
const trainings = (flags: Flags): readonly Contest[] =>
  flags.checkpoint.flatMap((checkpoint) =>
    (flags.batch ?? [1]).map((size) => {
      const adapter = flags.allWeights ? undefined : join(workshop, 'adapters', checkpointName(checkpoint))
      const job = { checkpoint, size, steps: stepsOf(flags), adapter }
      const contender = { name: 'ours', run: () => oursTraining(job) }
      const theirs = { name: flags.allWeights ? 'pytorch' : 'peft', run: () => peftTraining(job) }
      return {
        checkpoint,
        kind: 'train',
        size,
        contenders: flags.compare ? [{ ...contender, rival: theirs.name }, theirs] : [contender]
      }
    })
  )

/** The cases that the flags select: tiles, context lengths and batch sizes; one tile by default. */
const casesOf = ({ load, tiles, context, batch, llamacpp, openvino }: Flags): ReadonlyArray<readonly [Job['kind'], number]> => {
  if (load) return [['load', 1]]
  const asked = { tiles, context, batch }
  const cases = (['tiles', 'context', 'batch'] as const).flatMap((kind) =>
    (asked[kind] ?? []).map((size) => [kind, size] as const)
  )
  return cases.length > 0 || llamacpp || openvino ? cases : [['tiles', 1]]
}

/** Throws a `RangeError`, before anything is measured, for a folder with quantized weights that the flags cannot measure. */
export const checkStored = async ({
  checkpoint,
  precision,
  compare,
  llamacpp,
  openvino,
  train,
  quality
}: Flags): Promise<void> => {
  const flag = Object.entries({ compare, llamacpp, openvino, train, quality }).find(([, isSet]) => isSet)?.[0]
  for (const folder of checkpoint) {
    const stored = await storedQuantization(folder)
    if (stored && flag) throw new RangeError(`--${flag}: ${folder} has quantized weights: give the original folder`)
    const other = precision.find((name) => name !== stored)
    if (stored && other)
      throw new RangeError(`--precision ${other}: ${folder} has quantized weights: measure it with --precision ${stored}`)
  }
}

/** Everything to measure. Throws a `RangeError` for a missing program or package, before anything is measured. */
export const contestsOf = (flags: Flags): readonly Contest[] => {
  const {
    checkpoint: checkpoints,
    precision,
    newTokens,
    runs,
    compare = false,
    llamacpp = false,
    openvino: withPeer = false
  } = flags
  if (compare) flags.train ? peftPython() : python()
  if (flags.train) return trainings(flags)
  if (llamacpp && !precision.some((name) => ggufTypes[name]))
    throw new RangeError(`--llamacpp compares int8 and int4; --precision is ${precision.join(',')}`)
  if (llamacpp) checkLlamaCpp(checkpoints)
  if (withPeer) checkOpenVino(checkpoints)
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
    const beside = (part: keyof typeof openvinoTypes, kind: Job['kind'], size: number): Contest[] => {
      const contenders = withOpenVino(part, jobs(kind, size))
      return contenders.length > 0 ? [{ checkpoint, kind, size, contenders }] : []
    }
    return [
      ...contests,
      ...(llamacpp ? [decoders] : []),
      ...(withPeer
        ? [
            ...beside('vision', 'tiles', 1),
            ...[PROMPT, ...(flags.context ?? [])].flatMap((size) => beside('decoder', 'context', size))
          ]
        : [])
    ]
  })
}

/** Measures the contenders in turn, round by round, so that a drift of the machine's speed affects all alike. `say` reports every process. */
export const runContest = async (contest: Contest, rounds: number, say: (line: string) => void): Promise<readonly Result[]> => {
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
