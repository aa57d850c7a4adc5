import { readFileSync } from 'node:fs'
import { type InternVLCheckpoint, load } from '../../../generation/checkpoint/load.js'
import { type GenerateInputs, generate } from '../../../generation/decoding/generate.js'
import { selectEngine } from '../../../lib/engines/index.js'
import { tf } from '../../../lib/tf.js'
import { pictureInputs, textInputs } from './inputs.js'
import { type PrecisionName, precisions } from './precisions.js'

/** What is varied: tiles of a picture, words of a prompt without one, rows of 64 words, rows to train on; or nothing is run but loading. */
export type Kind = 'tiles' | 'context' | 'batch' | 'train' | 'load'

/** What one process measures, of one checkpoint. */
export interface Job {
  readonly checkpoint: string
  readonly precision: PrecisionName
  readonly kind: Exclude<Kind, 'train'>
  /** So many tiles, words or rows. */
  readonly size: number
  /** Tokens to decode after the first. */
  readonly newTokens: number
  readonly runs: number
}

/** Figures, by the keys of `bench_transformers.py` and `bench_peft.py`. Speeds are tokens a second, of all rows together. */
export const figures = [
  ...(['load_s', 'vision_s', 'prefill_s', 'decode_tokens_per_s'] as const),
  ...(['step_s', 'trained_tokens_per_s', 'peak_rss_mb'] as const)
] as const
export type Figure = (typeof figures)[number]

/** What one process measured: each run's figures; loading and peak memory it has once. */
export interface Measured {
  readonly engine: string
  readonly dtype: string
  /** Of the prompt. */
  readonly tokens?: number
  readonly samples: { readonly [F in Figure]?: readonly number[] }
  /** Of each training step, before it. */
  readonly losses?: readonly number[]
  /** Resident after some of the training steps. */
  readonly memory?: ReadonlyArray<readonly [step: number, megabytes: number]>
}

/** Seconds. */
export const now = (): number => performance.now() / 1000

/** The greatest memory of this process so far, in MB of 2^20 bytes. The system's own mark of what it was started from is left out. */
export const peakMegabytes = (): number => {
  try {
    return Number(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))![1]) / 1024
  } catch {
    return process.resourceUsage().maxRSS / 1024 // no Linux
  }
}

const inputsOf = ({ config }: InternVLCheckpoint, { kind, size, newTokens }: Job): GenerateInputs => {
  const inputs =
    kind === 'tiles'
      ? pictureInputs(config, size)
      : textInputs(config, kind === 'context' ? size : 64, kind === 'batch' ? size : 1)
  const [room, needed] = [config.textConfig.maxPositionEmbeddings, inputs.inputIds.shape[1] + newTokens + 1]
  if (needed <= room) return inputs
  tf.dispose([inputs.inputIds, ...(inputs.pixelValues ? [inputs.pixelValues] : [])])
  throw new RangeError(`--${kind} ${size}: ${needed} positions with the new tokens, and this model has ${room}`)
}

interface Run {
  readonly vision_s?: number
  readonly prefill_s: number
  readonly decode_tokens_per_s: number
}

/** Numbers are read back, so that nothing is left undone when a clock stops. */
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

/** Loads the checkpoint and times it in this process. Throws a `RangeError` where the model is too short for the job. */
export const measure = async (job: Job): Promise<Measured> => {
  const engine = await selectEngine() // not part of loading
  const begun = now()
  const internvl = await load(job.checkpoint, precisions[job.precision])
  const loaded = { load_s: [now() - begun] }
  const who = { engine: engine.name, dtype: job.precision }
  try {
    if (job.kind === 'load') return { ...who, samples: { ...loaded, peak_rss_mb: [peakMegabytes()] } }
    const inputs = inputsOf(internvl, job)
    const runs: Run[] = []
    for (let run = 0; run < job.runs; run++) runs.push(await runOnce(internvl, inputs, job.newTokens))
    const tokens = inputs.inputIds.shape[1]
    tf.dispose([inputs.inputIds, ...(inputs.pixelValues ? [inputs.pixelValues] : [])])
    const values = (key: keyof Run) => ({ [key]: runs.flatMap((run) => run[key] ?? []) })
    const samples = {
      ...loaded,
      ...(job.kind === 'tiles' ? values('vision_s') : {}),
      ...values('prefill_s'),
      ...values('decode_tokens_per_s')
    }
    return { ...who, tokens, samples: { ...samples, peak_rss_mb: [peakMegabytes()] } }
  } finally {
    internvl.dispose()
  }
}
