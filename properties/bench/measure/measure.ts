import { readFileSync } from 'node:fs'
import type { InternVLCheckpoint } from '../../../generation/checkpoint/load.js'
import { type GenerateInputs, generate } from '../../../generation/decoding/generate.js'
import { selectEngine } from '../../../lib/engines/index.js'
import { tf } from '../../../lib/tf.js'
import { imageInputs, textInputs } from './inputs.js'
import { loadIn, type PrecisionName } from './precisions.js'
import { type Work, workOf } from './work.js'

/** The quantity that varies: tiles of an image, tokens of a text prompt, rows of a batch, rows of a training batch; `load` measures loading alone. */
export type Kind = 'tiles' | 'context' | 'batch' | 'train' | 'load'

/** One measurement of one checkpoint, made in one process. */
export interface Job {
  readonly checkpoint: string
  readonly precision: PrecisionName
  readonly kind: Exclude<Kind, 'train'>
  /** Number of tiles, tokens or rows. */
  readonly size: number
  /** Tokens to decode after the first. */
  readonly newTokens: number
  readonly runs: number
}

/** Figures, with the keys of `bench_transformers.py` and `bench_peft.py`. Speeds are tokens a second over all rows. */
export const figures = [
  ...(['load_s', 'vision_s', 'prefill_s', 'decode_tokens_per_s'] as const),
  ...(['step_s', 'trained_tokens_per_s', 'peak_rss_mb'] as const)
] as const
export type Figure = (typeof figures)[number]

/** Result of one process: the figures of every run; loading time and peak memory once. */
export interface Measured {
  readonly engine: string
  readonly dtype: string
  /** Tokens of the prompt. */
  readonly tokens?: number
  /** Work of one run, of this project's measurements. */
  readonly work?: Work
  readonly samples: { readonly [F in Figure]?: readonly number[] }
  /** Loss before every training step. */
  readonly losses?: readonly number[]
  /** Resident memory after some of the training steps. */
  readonly memory?: ReadonlyArray<readonly [step: number, megabytes: number]>
}

/** Current time in seconds. */
export const now = (): number => performance.now() / 1000

/** Peak resident memory of this process, in MB of 2^20 bytes. `VmHWM` excludes the parent's memory, which `getrusage` includes. */
export const peakMegabytes = (): number => {
  try {
    return Number(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))![1]) / 1024
  } catch {
    return process.resourceUsage().maxRSS / 1024 // systems other than Linux
  }
}

/** Throws a `RangeError` if the model has fewer positions than the prompt and the new tokens of a case need. */
export const checkPositions = ({ config }: InternVLCheckpoint, kind: Job['kind'], size: number, needed: number): void => {
  const positions = config.textConfig.maxPositionEmbeddings
  if (needed > positions)
    throw new RangeError(`--${kind} ${size}: the prompt and the new tokens need ${needed} positions; this model has ${positions}`)
}

const inputsOf = (internvl: InternVLCheckpoint, { kind, size, newTokens }: Job): GenerateInputs => {
  const { config } = internvl
  const inputs =
    kind === 'tiles' ? imageInputs(config, size) : textInputs(config, kind === 'context' ? size : 64, kind === 'batch' ? size : 1)
  try {
    checkPositions(internvl, kind, size, inputs.inputIds.shape[1] + newTokens + 1)
    return inputs
  } catch (error) {
    tf.dispose([inputs.inputIds, ...(inputs.pixelValues ? [inputs.pixelValues] : [])])
    throw error
  }
}

interface Run {
  readonly vision_s?: number
  readonly prefill_s: number
  readonly decode_tokens_per_s: number
}

/** Times one run. Results are read back, so that all work is done when the clock stops. */
const runOnce = async ({ model }: InternVLCheckpoint, inputs: GenerateInputs, newTokens: number): Promise<Run> => {
  const { pixelValues, inputIds } = inputs
  const start = now()
  if (pixelValues) tf.tidy(() => model.imageFeatures(pixelValues).sum().dataSync())
  const stamps = [now()]
  for await (const _ of generate(model, inputs, { maxNewTokens: newTokens + 1, minNewTokens: 0, eosTokenIds: [] }))
    stamps.push(now())
  const steps = (stamps.length - 2) / (stamps.at(-1)! - stamps[1]!)
  return {
    ...(pixelValues ? { vision_s: stamps[0]! - start } : {}),
    prefill_s: stamps[1]! - stamps[0]!,
    decode_tokens_per_s: steps * inputIds.shape[0]
  }
}

/** Loads the checkpoint and measures it in this process. Throws a `RangeError` if the model has too few positions for the job. */
export const measure = async (job: Job): Promise<Measured> => {
  const engine = await selectEngine() // not part of loading
  const start = now()
  const internvl = await loadIn(job.checkpoint, job.precision)
  const loaded = { load_s: [now() - start] }
  const contender = { engine: engine.name, dtype: job.precision }
  try {
    if (job.kind === 'load') return { ...contender, samples: { ...loaded, peak_rss_mb: [peakMegabytes()] } }
    const inputs = inputsOf(internvl, job)
    const runs: Run[] = []
    for (let run = 0; run < job.runs; run++) runs.push(await runOnce(internvl, inputs, job.newTokens))
    const [rows, tokens] = inputs.inputIds.shape
    const tiles = inputs.pixelValues?.shape[0] ?? 0
    const work = workOf(internvl, { tiles, rows, promptTokens: tokens, newTokens: job.newTokens })
    tf.dispose([inputs.inputIds, ...(inputs.pixelValues ? [inputs.pixelValues] : [])])
    const values = (key: keyof Run) => ({ [key]: runs.flatMap((run) => run[key] ?? []) })
    const samples = {
      ...loaded,
      ...(job.kind === 'tiles' ? values('vision_s') : {}),
      ...values('prefill_s'),
      ...values('decode_tokens_per_s')
    }
    return { ...contender, tokens, work, samples: { ...samples, peak_rss_mb: [peakMegabytes()] } }
  } finally {
    internvl.dispose()
  }
}
