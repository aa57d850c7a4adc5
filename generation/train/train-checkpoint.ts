import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import * as t from 'io-ts'
import { errorText, InternVLError, type Issues, issue, orThrow } from '../../lib/error.js'
import { syncFolder } from '../../lib/files.js'
import type { AdamWState } from '../../lib/optim/adamw.js'
import { mapParams, namedParameters, type StateDict, shapeIssues } from '../../lib/params.js'
import { openSafetensors } from '../../lib/safetensors/read.js'
import { type TensorSource, writeSafetensors } from '../../lib/safetensors/write.js'
import { tf } from '../../lib/tf.js'
import { decode } from '../../processors/config/decode-json.js'
import type { LossScale } from './loss-scale.js'
import type { LossState, TrainState } from './training-loop.js'

/** Contents of `state.json`, the metadata of a checkpoint. */
export interface CheckpointMetadata {
  readonly step: number
  readonly position: number
  readonly lossState: LossState
  /** The loss scale of a run in float16. */
  readonly lossScale?: LossScale
  /** Number of updates of the optimizer. */
  readonly optimizerStep: number
  /** The loss on the validation set; the best checkpoint has the lowest. */
  readonly metric?: number
  /** Settings of the run; a resumed run compares its own with them. */
  readonly settings?: unknown
  /** Digest of the training data. */
  readonly dataDigest?: string | undefined
}

const metadataCodec = t.intersection([
  t.type({ step: t.number, position: t.number, optimizerStep: t.number }),
  t.partial({ metric: t.number, settings: t.unknown, lossScale: t.type({ scale: t.number, goodSteps: t.number }) }),
  t.partial({ lossState: t.record(t.string, t.number), dataDigest: t.string }),
  t.partial({ memory: t.record(t.string, t.number), data: t.string }) // names of these two before 0.2
])

export interface TrainCheckpointOptions extends Pick<CheckpointMetadata, 'metric' | 'settings' | 'dataDigest'> {
  /** Number of latest checkpoints that are kept, beside the one with the lowest metric. Default: 2. */
  readonly keepLast?: number
}

/** File of the trained parameters, by their paths in the parameter tree. */
export const trainedFile = 'trained.safetensors'
const optimizerFile = 'optimizer.safetensors'
const metadataFile = 'state.json'

const folderName = (step: number): string => `step-${String(step).padStart(7, '0')}`
const temporaryName = (name: string): string => `.${name}.${process.pid}.tmp`

const tensorSources = (tensors: StateDict): readonly TensorSource[] =>
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

const writeAll = async (folder: string, { params, optimizer, ...counts }: TrainState<unknown>, rest: TrainCheckpointOptions) => {
  const { step, position, lossState, lossScale } = counts
  const { metric, settings, dataDigest } = rest
  const metadata: CheckpointMetadata = {
    ...{ step, position, lossState, optimizerStep: optimizer.step, settings },
    ...(lossScale ? { lossScale } : {}),
    ...(metric === undefined ? {} : { metric }),
    ...(dataDigest === undefined ? {} : { dataDigest })
  }
  await mkdir(folder, { recursive: true })
  await orThrow(writeSafetensors(join(folder, trainedFile), tensorSources(Object.fromEntries(namedParameters(params)))))
  await orThrow(writeSafetensors(join(folder, optimizerFile), tensorSources(moments(optimizer))))
  await writeFile(join(folder, metadataFile), `${JSON.stringify(metadata, null, 2)}\n`, { flush: true })
}

const stepOf = (name: string): number | undefined => {
  const digits = /^step-(\d{7,})$/.exec(name)?.[1]
  return digits === undefined ? undefined : Number(digits)
}

/** Names of the checkpoints in a folder, the oldest first. */
const checkpointNames = async (folder: string): Promise<readonly string[]> =>
  (await readdir(folder).catch(() => [])).filter((name) => stepOf(name) !== undefined).sort((a, b) => stepOf(a)! - stepOf(b)!)

/** Renames the checkpoint before the files are removed, so that a kill leaves no partial checkpoint. */
const removeCheckpoint = async (folder: string, name: string): Promise<void> => {
  const renamed = join(folder, temporaryName(`${name}.old`))
  await rm(renamed, { recursive: true, force: true })
  await rename(join(folder, name), renamed)
  await rm(renamed, { recursive: true, force: true })
}

const unreadable = (dir: string, error: unknown): Issues => {
  if (error instanceof InternVLError) return error.issues
  return [issue('CheckpointUnreadable', `${dir}: not a checkpoint of a training run (${errorText(error)})`, { file: dir })]
}

/** The metadata of a checkpoint. Errors: `CheckpointUnreadable`; a field that is missing or wrong. */
export const readCheckpointMetadata = (dir: string): TaskEither<Issues, CheckpointMetadata> => {
  const file = join(dir, metadataFile)
  return pipe(
    TE.tryCatch(
      async () => JSON.parse(await readFile(file, 'utf8')) as unknown,
      (error) => unreadable(dir, error)
    ),
    TE.chainEitherK((json) => decode(metadataCodec, json, file)),
    TE.map(({ memory = {}, data, ...metadata }) => ({ lossState: memory, dataDigest: data, ...metadata }))
  )
}

/** The checkpoint with the lowest metric among those that have one. */
export const bestCheckpoint = async (folder: string): Promise<string | undefined> => {
  const names = await checkpointNames(folder)
  const all = await Promise.all(
    names.map(async (name) => ({ name, ...(await orThrow(readCheckpointMetadata(join(folder, name)))) }))
  )
  const [first, ...others] = all.filter(({ metric }) => metric !== undefined)
  return first && join(folder, others.reduce((best, other) => (other.metric! < best.metric! ? other : best), first).name)
}

/** The checkpoint of the latest step, if there is one. */
export const lastCheckpoint = async (folder: string): Promise<string | undefined> => {
  const last = (await checkpointNames(folder)).at(-1)
  return last === undefined ? undefined : join(folder, last)
}

const removeOld = async (folder: string, keep: number): Promise<void> => {
  const best = await bestCheckpoint(folder)
  const all = await checkpointNames(folder)
  const old = all.slice(0, Math.max(0, all.length - keep)).filter((name) => join(folder, name) !== best)
  for (const name of old) await removeCheckpoint(folder, name)
  for (const name of await readdir(folder)) // leftovers of a killed run
    if (/^\.step-.+\.tmp$/.test(name)) await rm(join(folder, name), { recursive: true, force: true })
}

const writeFailed = (folder: string, error: unknown): Issues => {
  if (error instanceof InternVLError) return error.issues
  if (!(error instanceof Error && 'syscall' in error)) throw error
  return [issue('WriteFailed', `${folder}: the checkpoint cannot be written (${error.message})`, { file: folder })]
}

/**
 * Saves a state as `folder/step-…`, removes old checkpoints, and returns the path. The checkpoint is written under a temporary name
 * and renamed when all files are on the disk, so that a kill or a full disk leaves the earlier checkpoints intact. Error: `WriteFailed`.
 */
export const saveCheckpoint =
  (folder: string, state: TrainState<unknown>, options: TrainCheckpointOptions = {}): TaskEither<Issues, string> =>
  async () => {
    const name = folderName(state.step)
    const [temporary, final] = [join(folder, temporaryName(name)), join(folder, name)]
    try {
      await rm(temporary, { recursive: true, force: true })
      await writeAll(temporary, state, options)
      if ((await checkpointNames(folder)).includes(name)) await removeCheckpoint(folder, name)
      await rename(temporary, final)
      await syncFolder(folder)
      await removeOld(folder, Math.max(1, options.keepLast ?? 2))
      return E.right(final)
    } catch (error) {
      await rm(temporary, { recursive: true, force: true }).catch(() => {})
      return E.left(writeFailed(folder, error))
    }
  }

/** All tensors of a file, by key. Throws an `InternVLError` unless keys and shapes are those of `declared`. */
const readAll = async (file: string, declared: StateDict): Promise<StateDict> => {
  const files = await orThrow(openSafetensors(file))
  try {
    const shapes = (of: Iterable<readonly [string, { readonly shape: readonly number[] }]>) =>
      new Map([...of].map(([key, { shape }]) => [key, shape]))
    const [first, ...others] = shapeIssues(shapes(Object.entries(declared)), shapes(files.entries))
    const inFile = (f: NonNullable<typeof first>) => ({ ...f, message: `${file}: ${f.message}` })
    if (first) throw new InternVLError([inFile(first), ...others.map(inFile)])
    const tensors: Record<string, tf.Tensor> = {}
    for (const [key, entry] of files.entries)
      tensors[key] = tf.tensor(await files.readFloat32(entry), [...entry.shape], 'float32')
    return tensors
  } finally {
    await files.close()
  }
}

/** The state of a checkpoint, and its metadata. */
export interface LoadedCheckpoint<P> {
  readonly state: TrainState<P>
  readonly metadata: CheckpointMetadata
}

/**
 * Loads the state of a checkpoint folder. `params` gives the structure of the parameter tree; its tensors stay with the caller.
 * Errors: files that are missing or damaged; every tensor that is missing, unexpected or of another shape.
 */
export const loadCheckpoint =
  <P>(dir: string, params: P): TaskEither<Issues, LoadedCheckpoint<P>> =>
  async () => {
    const loaded: StateDict[] = []
    const read = async (file: string, declared: StateDict) => {
      const tensors = await readAll(join(dir, file), declared)
      loaded.push(tensors)
      return tensors
    }
    try {
      const metadata = await orThrow(readCheckpointMetadata(dir))
      const declared = Object.fromEntries(namedParameters(params))
      const trained = await read(trainedFile, declared)
      const saved = await read(optimizerFile, moments({ first: declared, second: declared }))
      const moment = (name: string) => Object.fromEntries(Object.keys(declared).map((key) => [key, saved[`${name}.${key}`]!]))
      const { step, position, lossState, optimizerStep, lossScale } = metadata
      const scale = lossScale ? { lossScale } : {}
      const optimizer = { step: optimizerStep, first: moment('first'), second: moment('second') }
      return E.right({
        metadata,
        state: { params: mapParams((_, path) => trained[path]!)(params), optimizer, step, position, lossState, ...scale }
      })
    } catch (error) {
      for (const tensors of loaded) tf.dispose(tensors)
      return E.left(unreadable(dir, error))
    }
  }
