import { createHash } from 'node:crypto'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import { type Issue, issue } from '../../lib/error.js'
import type { Json } from '../../models/config/config-fields.js'
import type { TrainingData } from './data/mixture.js'
import { type CheckpointMetadata, lastCheckpoint, readCheckpointMetadata } from './train-checkpoint.js'
import { type TrainConfig, trainConfig } from './train-config.js'

/** Settings that may change when a run is resumed. They do not enter a step, except that the learning rate follows the number of steps. */
const changeable = /^(output|validation|epochs|steps|gradientCheckpointing|save\..*|evaluate\..*|log\..*)$/

/** SHA-256 of the rows that training uses, and of their repeats. */
export const dataDigest = ({ rows, repeats }: TrainingData): string => {
  const hash = createHash('sha256')
  for (const [i, { messages, rejected, augment, maxPatches }] of rows.entries())
    hash.update(`${JSON.stringify([messages, rejected, augment, maxPatches, repeats[i]])}\n`)
  return hash.digest('hex')
}

const show = (value: unknown): string => JSON.stringify(value)

/** One issue for each of the keys whose value changed. */
const changes = <K extends string>(
  keys: readonly K[],
  before: Readonly<Partial<Record<K, unknown>>>,
  now: Readonly<Partial<Record<K, unknown>>>
): readonly Issue[] =>
  keys
    .filter((key) => show(before[key]) !== show(now[key]))
    .map((key) => {
      const message = `--resume: ${key} was ${show(before[key])} when the run began, and is ${show(now[key])} now`
      return issue('ResumeChanged', message, { key })
    })

/** One issue for each setting that differs from the setting in the checkpoint. */
const changedSettings = (checkpoint: string, { settings }: CheckpointMetadata, now: TrainConfig): readonly Issue[] =>
  pipe(
    trainConfig((settings ?? {}) as Json, join(checkpoint, 'state.json')),
    E.match(
      (issues): readonly Issue[] => issues,
      (before) =>
        changes(
          (Object.keys(now) as (keyof TrainConfig)[]).filter((key) => !changeable.test(key)),
          before,
          now
        )
    )
  )

const advice = (checkpoint: string): Issue => {
  const message = `--resume: ${checkpoint} resumes only with the settings and data of its run; for a new run choose another output`
  return issue('ResumeRefused', message, { file: checkpoint })
}

const resumeProblems = (
  checkpoint: string,
  metadata: CheckpointMetadata,
  settings: TrainConfig,
  digest: string | undefined
): readonly Issue[] => {
  const isOther = digest !== undefined && metadata.dataDigest !== undefined && metadata.dataDigest !== digest
  const message = '--resume: the training data changed since the run began: the rows, their order or their content'
  const issues = [...changedSettings(checkpoint, metadata, settings), ...(isOther ? [issue('ResumeChanged', message, {})] : [])]
  return issues.length > 0 ? [...issues, advice(checkpoint)] : []
}

/**
 * Reasons why a run cannot resume from its last checkpoint, or cannot begin because checkpoints exist: each changed setting, and changed
 * data. `settings` are those that the next checkpoint would store.
 */
export const resumeIssues = async (
  checkpoints: string,
  resume: boolean,
  settings: TrainConfig,
  digest: string | undefined
): Promise<readonly Issue[]> => {
  const last = await lastCheckpoint(checkpoints)
  if (last === undefined) return []
  if (!resume) {
    const message = `${checkpoints}: the folder holds checkpoints of an earlier run; add --resume, or choose another output`
    return [issue('CheckpointsThere', message, { file: checkpoints })]
  }
  return pipe(
    await readCheckpointMetadata(last)(),
    E.match(
      (issues): readonly Issue[] => issues,
      (metadata) => resumeProblems(last, metadata, settings, digest)
    )
  )
}

/**
 * One issue for each of the given values that differs from the value in the settings of the last checkpoint, and none without a checkpoint.
 * `before` holds the values that older checkpoints lack.
 */
export const changedValues = async (
  checkpoints: string,
  now: Readonly<Record<string, unknown>>,
  before: Readonly<Record<string, unknown>> = {}
): Promise<readonly Issue[]> => {
  const last = await lastCheckpoint(checkpoints)
  if (last === undefined) return []
  return pipe(
    await readCheckpointMetadata(last)(),
    E.match(
      (issues): readonly Issue[] => issues,
      ({ settings }) => {
        const saved = { ...before, ...(settings as object) } as Readonly<Record<string, unknown>>
        const found = changes(Object.keys(now), saved, now)
        return found.length > 0 ? [...found, advice(last)] : []
      }
    )
  )
}
