import { mkdir, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { InternVLError, type Issues, issue, orThrow } from '../../lib/error.js'
import type { AdamWState } from '../../lib/optim/adamw.js'
import { compareShapes, mapParams, namedParameters, type StateDict } from '../../lib/params.js'
import { openSafetensors } from '../../lib/safetensors/read.js'
import { type TensorSource, writeSafetensors } from '../../lib/safetensors/write.js'
import { tf } from '../../lib/tf.js'
import type { Memory, TrainState } from './training-loop.js'

/** What a checkpoint says of itself, in `state.json`. */
export interface CheckpointNote {
  readonly step: number
  readonly position: number
  readonly memory: Memory
  /** Steps that the optimizer has counted. */
  readonly optimizerStep: number
  /** What the best is chosen by, the lowest: the loss on held-out data, or of training. */
  readonly metric?: number
  /** What the run was made with; whoever resumes compares. */
  readonly settings?: unknown
  /** What tells the data that it is trained on from others. */
  readonly data?: string | undefined
}

export interface SaveCheckpointOptions extends Pick<CheckpointNote, 'metric' | 'settings' | 'data'> {
  /** So many of the last ones stay, and the one with the lowest metric. 2 by default. */
  readonly keep?: number
}

/** What was trained, by the paths of the tree. */
export const trainedFile = 'trained.safetensors'
const optimizerFile = 'optimizer.safetensors'
const noteFile = 'state.json'

const folderName = (step: number): string => `step-${String(step).padStart(7, '0')}`
const staged = (name: string): string => `.${name}.${process.pid}.tmp`

const sourcesOf = (tensors: StateDict): readonly TensorSource[] =>
  Object.entries(tensors).map(([key, tensor]) => ({
    key,
    dtype: 'F32',
    shape: tensor.shape,
    bytes: async () => {
      const { buffer, byteOffset, byteLength } = await tensor.data<'float32'>()
      return new Uint8Array(buffer, byteOffset, byteLength)
    }
  }))

const moments = ({ first, second }: Pick<AdamWState, 'first' | 'second'>): StateDict =>
  Object.fromEntries(
    Object.entries({ first, second }).flatMap(([name, dict]) => Object.entries(dict).map(([key, t]) => [`${name}.${key}`, t]))
  )

const syncFolder = async (folder: string): Promise<void> => {
  const handle = await open(folder, 'r')
  await handle.sync().finally(() => handle.close())
}

const writeAll = async (folder: string, { params, optimizer, ...counts }: TrainState<unknown>, rest: SaveCheckpointOptions) => {
  const { step, position, memory } = counts
  const { metric, settings, data } = rest
  const note: CheckpointNote = {
    ...{ step, position, memory, optimizerStep: optimizer.step, settings },
    ...(metric === undefined ? {} : { metric }),
    ...(data === undefined ? {} : { data })
  }
  await mkdir(folder, { recursive: true })
  await orThrow(writeSafetensors(join(folder, trainedFile), sourcesOf(Object.fromEntries(namedParameters(params)))))
  await orThrow(writeSafetensors(join(folder, optimizerFile), sourcesOf(moments(optimizer))))
  await writeFile(join(folder, noteFile), `${JSON.stringify(note, null, 2)}\n`, { flush: true })
}

const stepOf = (name: string): number | undefined => {
  const digits = /^step-(\d{7,})$/.exec(name)?.[1]
  return digits === undefined ? undefined : Number(digits)
}

/** Names of the checkpoints in a folder, the oldest first. */
const names = async (folder: string): Promise<readonly string[]> =>
  (await readdir(folder).catch(() => [])).filter((name) => stepOf(name) !== undefined).sort((a, b) => stepOf(a)! - stepOf(b)!)

/** Out of sight first, in one step, so that a kill leaves no half of a checkpoint. */
const removeCheckpoint = async (folder: string, name: string): Promise<void> => {
  const hidden = join(folder, staged(`${name}.old`))
  await rm(hidden, { recursive: true, force: true })
  await rename(join(folder, name), hidden)
  await rm(hidden, { recursive: true, force: true })
}

const readNote = async (dir: string): Promise<CheckpointNote> => JSON.parse(await readFile(join(dir, noteFile), 'utf8'))

/** The checkpoint with the lowest metric among those that have one. */
export const bestCheckpoint = async (folder: string): Promise<string | undefined> => {
  const notes = await Promise.all((await names(folder)).map(async (name) => ({ name, ...(await readNote(join(folder, name))) })))
  const [first, ...others] = notes.filter(({ metric }) => metric !== undefined)
  return first && join(folder, others.reduce((best, note) => (note.metric! < best.metric! ? note : best), first).name)
}

/** The checkpoint of the latest step, if there is one. */
export const lastCheckpoint = async (folder: string): Promise<string | undefined> => {
  const last = (await names(folder)).at(-1)
  return last === undefined ? undefined : join(folder, last)
}

const prune = async (folder: string, keep: number): Promise<void> => {
  const best = await bestCheckpoint(folder)
  const all = await names(folder)
  const old = all.slice(0, Math.max(0, all.length - keep)).filter((name) => join(folder, name) !== best)
  for (const name of old) await removeCheckpoint(folder, name)
  for (const name of await readdir(folder)) // what a run that was killed left
    if (/^\.step-.+\.tmp$/.test(name)) await rm(join(folder, name), { recursive: true, force: true })
}

const failure = (folder: string, error: unknown): Issues => {
  if (error instanceof InternVLError) return error.issues
  if (!(error instanceof Error && 'syscall' in error)) throw error
  return [issue('WriteFailed', `${folder}: the checkpoint cannot be written (${error.message})`, { file: folder })]
}

/**
 * Saves a state as `folder/step-…`, and removes old ones; its path. It is written under another name and renamed when it is
 * whole and on the disk: a kill or a full disk leaves those that were there. Error: `WriteFailed`.
 */
export const saveCheckpoint =
  (folder: string, state: TrainState<unknown>, options: SaveCheckpointOptions = {}): TaskEither<Issues, string> =>
  async () => {
    const name = folderName(state.step)
    const [stage, final] = [join(folder, staged(name)), join(folder, name)]
    try {
      await rm(stage, { recursive: true, force: true })
      await writeAll(stage, state, options)
      if ((await names(folder)).includes(name)) await removeCheckpoint(folder, name)
      await rename(stage, final)
      await syncFolder(folder)
      await prune(folder, Math.max(1, options.keep ?? 2))
      return E.right(final)
    } catch (error) {
      await rm(stage, { recursive: true, force: true }).catch(() => {})
      return E.left(failure(folder, error))
    }
  }

/** All tensors of a file, by key, which have to be as `declared`. */
const readAll = async (file: string, declared: StateDict): Promise<StateDict> => {
  const files = await orThrow(openSafetensors(file))
  try {
    const shapes = (of: Iterable<readonly [string, { readonly shape: readonly number[] }]>) =>
      new Map([...of].map(([key, { shape }]) => [key, shape]))
    const [first, ...others] = compareShapes(shapes(Object.entries(declared)), shapes(files.entries))
    const named = (f: NonNullable<typeof first>) => ({ ...f, message: `${file}: ${f.message}` })
    if (first) throw new InternVLError([named(first), ...others.map(named)])
    const tensors: Record<string, tf.Tensor> = {}
    for (const [key, entry] of files.entries)
      tensors[key] = tf.tensor(await files.readFloat32(entry), [...entry.shape], 'float32')
    return tensors
  } finally {
    await files.close()
  }
}

const unreadable = (dir: string, error: unknown): Issues => {
  if (error instanceof InternVLError) return error.issues
  return [
    issue('CheckpointUnreadable', `${dir}: it is no checkpoint of a training run (${(error as Error).message})`, { file: dir })
  ]
}

/** What a checkpoint says of itself. Error: `CheckpointUnreadable`. */
export const checkpointNote =
  (dir: string): TaskEither<Issues, CheckpointNote> =>
  async () => {
    try {
      return E.right(await readNote(dir))
    } catch (error) {
      return E.left(unreadable(dir, error))
    }
  }

/** A state and what is noted with it. */
export interface LoadedCheckpoint<P> {
  readonly state: TrainState<P>
  readonly note: CheckpointNote
}

/**
 * The state that was saved in a checkpoint's folder, for a tree of the structure of `params`, whose tensors stay the caller's.
 * Errors: files that are missing or damaged, every tensor missing, unexpected or of another shape.
 */
export const loadCheckpoint =
  <P>(dir: string, params: P): TaskEither<Issues, LoadedCheckpoint<P>> =>
  async () => {
    const made: StateDict[] = []
    const read = async (file: string, declared: StateDict) => {
      const tensors = await readAll(join(dir, file), declared)
      made.push(tensors)
      return tensors
    }
    try {
      const note = await readNote(dir)
      const declared = Object.fromEntries(namedParameters(params))
      const trained = await read(trainedFile, declared)
      const saved = await read(optimizerFile, moments({ first: declared, second: declared }))
      const moment = (name: string) => Object.fromEntries(Object.keys(declared).map((key) => [key, saved[`${name}.${key}`]!]))
      const { step, position, memory, optimizerStep } = note
      const optimizer = { step: optimizerStep, first: moment('first'), second: moment('second') }
      return E.right({
        note,
        state: { params: mapParams((_, path) => trained[path]!)(params), optimizer, step, position, memory }
      })
    } catch (error) {
      for (const tensors of made) tf.dispose(tensors)
      return E.left(unreadable(dir, error))
    }
  }
