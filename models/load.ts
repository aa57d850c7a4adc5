import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import type { Faults } from '../lib/fault.js'
import { buildParams } from '../lib/params.js'
import type { TensorFiles } from '../lib/safetensors.js'
import type { tf } from '../lib/tf.js'
import { uploadPieces } from '../lib/upload.js'
import type { Layout, Planned } from './checkpoint.js'
import { pieceReader, plannedBytes } from './checkpoint-read.js'
import type { InternVLConfig } from './config.js'
import { type InternVL, internVL } from './internvl.js'
import { inFolder, keyFaults, type OpenCheckpoint, type OpenOptions, openCheckpoint, rangesOf, readingFaults } from './open.js'

/** The module of a configuration. */
export type InternVLModule = ReturnType<typeof internVL>
export type InternVLParams = Parameters<InternVLModule['apply']>[0]

/** A model from a folder. `dispose` frees its parameters. */
export interface LoadedModel {
  readonly config: InternVLConfig
  /** Which names and fusions the folder's files use. */
  readonly layout: Layout
  readonly module: InternVLModule
  readonly params: InternVLParams
  readonly model: InternVL
  readonly dispose: () => void
}

export interface LoadModelOptions extends OpenOptions {
  /** Told after each tensor: bytes read so far, and of all. */
  readonly onProgress?: (done: number, total: number) => void
}

/** The largest first: what is in memory only while a tensor is made then stands beside few others, not all. */
const largestFirst = (plan: readonly Planned[]): readonly Planned[] => [...plan].sort((a, b) => plannedBytes(b) - plannedBytes(a))

/** The planned tensors in float32, by key. */
export const readTensors = async (files: TensorFiles, plan: readonly Planned[], onProgress?: LoadModelOptions['onProgress']) => {
  const total = plan.reduce((n, tensor) => n + plannedBytes(tensor), 0)
  const tensors = new Map<string, tf.Tensor>()
  const pieces = pieceReader(rangesOf(files))
  let done = 0
  try {
    for (const planned of largestFirst(plan)) {
      tensors.set(planned.key, await uploadPieces(pieces(planned), planned.dtype, planned.shape))
      done += plannedBytes(planned)
      onProgress?.(done, total)
    }
    return tensors
  } catch (error) {
    for (const tensor of tensors.values()) tensor.dispose()
    throw error
  }
}

const buildModel = async (checkpoint: OpenCheckpoint, options: LoadModelOptions): Promise<E.Either<Faults, LoadedModel>> => {
  const { dir, config, layout, files, plan } = checkpoint
  const module = internVL(config)
  const problems = keyFaults(module, plan)
  if (problems.length > 0) return E.left(inFolder(dir, problems))
  const tensors = await readTensors(files, plan, options.onProgress)
  const params = buildParams(module, (path) => tensors.get(path)!)
  const dispose = () => tensors.forEach((tensor) => void tensor.dispose())
  return E.right({ config, layout, module, params, model: module.apply(params), dispose })
}

/**
 * Opens a checkpoint folder in any layout: config.json, then its safetensors, one tensor at a time, in float32.
 * All that is missing, unexpected or of another shape is reported together. Call `selectEngine` first.
 */
export const loadModel =
  (dir: string, options: LoadModelOptions = {}): TaskEither<Faults, LoadedModel> =>
  async () => {
    const checkpoint = await openCheckpoint(dir, options)()
    if (E.isLeft(checkpoint)) return checkpoint
    try {
      return await buildModel(checkpoint.right, options)
    } catch (error) {
      return E.left(readingFaults(dir, error))
    } finally {
      await checkpoint.right.files.close()
    }
  }
