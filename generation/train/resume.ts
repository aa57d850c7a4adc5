import { createHash } from 'node:crypto'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { type Issue, issue } from '../../lib/error.js'
import type { Json } from '../../models/config/config-fields.js'
import type { TrainingData } from './data/mixture.js'
import { type CheckpointNote, checkpointNote, lastCheckpoint } from './train-checkpoint.js'
import { type TrainConfig, trainConfig } from './train-config.js'

/** Settings that a run may go on with changed: what a step computes does not depend on them, but for the rate, which follows the steps. */
const free = /^(output|heldOut|epochs|steps|checkpointing|save\..*|evaluate\..*|log\..*)$/

/** What tells data apart: the rows as they are learned from, and how often. */
export const digestOf = ({ rows, repeats }: TrainingData): string => {
  const hash = createHash('sha256')
  for (const [i, { messages, rejected, augment, maxPatches }] of rows.entries())
    hash.update(`${JSON.stringify([messages, rejected, augment, maxPatches, repeats[i]])}\n`)
  return hash.digest('hex')
}

const shown = (value: unknown): string => JSON.stringify(value)

/** Settings of a checkpoint that are other ones now. */
const changed = (checkpoint: string, { settings }: CheckpointNote, now: TrainConfig): readonly Issue[] => {
  const before = trainConfig((settings ?? {}) as Json, join(checkpoint, 'state.json'))
  if (E.isLeft(before)) return before.left
  return (Object.keys(now) as (keyof TrainConfig)[])
    .filter((key) => !free.test(key) && shown(before.right[key]) !== shown(now[key]))
    .map(
      (key) =>
      issue('ResumeChanged', `--resume: ${key} was ${shown(before.right[key])} when this run was begun, it is ${shown(now[key])} now`, { key }) // biome-ignore format: one line
    )
}

const advice = (checkpoint: string): Issue =>
  issue('ResumeRefused', `--resume: ${checkpoint} goes on with what it was begun with; for a new run give another output`, {
    file: checkpoint
  })

/**
 * What keeps a run from going on with its last checkpoint, or from beginning where there is one: settings that matter and are other
 * ones now, key by key, and data that are. `settings` are those that would be kept with the next checkpoint.
 */
export const resumeIssues = async (
  checkpoints: string,
  resume: boolean,
  settings: TrainConfig,
  digest: string | undefined
): Promise<readonly Issue[]> => {
  const last = await lastCheckpoint(checkpoints)
  if (last === undefined) return []
  if (!resume)
    return [
      issue('CheckpointsThere', `${checkpoints}: a run has left checkpoints here; --resume goes on, or give another output`, {
        file: checkpoints
      })
    ]
  const note = await checkpointNote(last)()
  if (E.isLeft(note)) return note.left
  const isOther = digest !== undefined && note.right.data !== undefined && note.right.data !== digest
  const other = issue('ResumeChanged', '--resume: the data are not those that this run was begun with: rows, their order or what they say', {}) // biome-ignore format: one line
  const issues = [...changed(last, note.right, settings), ...(isOther ? [other] : [])]
  return issues.length > 0 ? [...issues, advice(last)] : []
}
