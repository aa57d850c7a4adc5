import { setImmediate } from 'node:timers/promises'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { InternVLError, type Issues, issue } from '../../lib/error.js'
import type { Module } from '../../lib/module.js'
import { buildParams, declarations, disposeParams } from '../../lib/params.js'
import { type Form, formOf, keepsPacked, type PackedWeight, unpack } from '../../lib/quantization/formats.js'
import type { TensorFiles } from '../../lib/safetensors/read.js'
import {
  type Pieces,
  uploadPacked,
  uploadPieces,
  uploadRange,
  uploadWordRange,
  uploadWords
} from '../../lib/safetensors/upload.js'
import { tf } from '../../lib/tf.js'
import type { InternVLConfig } from '../config/parse-config.js'
import { type InternVL, internVL } from '../internvl/internvl.js'
import { precisionOf } from '../quantization/precision.js'
import { type CacheOptions, cachedWeights } from '../quantization/quantized-cache.js'
import { splitForm } from '../quantization/quantized-keys.js'
import { type FormOptions, formsOf, precisionIssues } from '../quantization/weight-formats.js'
import type { Layout, Planned } from './layout.js'
import { checkMemory, type MemoryOptions } from './memory-check.js'
import {
  inFolder,
  keyIssues,
  type OpenCheckpoint,
  type OpenOptions,
  openCheckpoint,
  rangesOf,
  readingIssues
} from './open-checkpoint.js'
import { pieceReader, plannedBytes } from './read-planned.js'

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

export interface LoadModelOptions extends OpenOptions, FormOptions, CacheOptions, MemoryOptions {
  /** Told after each tensor: bytes read so far, and of all. With `cache`, the first time, of what is packed and then of what is loaded. */
  readonly onProgress?: (done: number, total: number) => void
}

/** The largest first: what is in memory only while a tensor is made then stands beside few others, not all. */
const largestFirst = (plan: readonly Planned[]): readonly Planned[] => [...plan].sort((a, b) => plannedBytes(b) - plannedBytes(a))

/** A tensor that lies in its file as one range, where the engine can read that by itself. */
const uploadWhole = (files: TensorFiles, { key, parts, dtype, shape, mxfp4 }: Planned, form?: Form) => {
  const [part, ...others] = parts
  if (!part || others.length > 0 || mxfp4) return undefined
  const { file, offset } = files.entries.get(part.source)!
  const [fd, at] = [files.handles.get(file)!.fd, offset + part.begin]
  const stored = splitForm(key).form
  try {
    return stored ? uploadWordRange(fd, at, shape as Matrix, stored) : uploadRange(fd, at, dtype, shape, form)
  } catch (error) {
    const message = `${file}: tensor ${key} can't be read (${(error as Error).message}); did the file change meanwhile?`
    throw new InternVLError([issue('FileUnreadable', message, { file, key })])
  }
}

type Matrix = readonly [rows: number, columns: number]

const uploadInPieces = (from: Pieces, { key, dtype, shape }: Planned, form?: Form): Promise<tf.Tensor | PackedWeight> => {
  const stored = splitForm(key).form
  if (stored) return uploadWords(from, shape as Matrix, stored)
  return form ? uploadPacked(from, dtype, shape as Matrix, form) : uploadPieces(from, dtype, shape)
}

/** A weight as the engine computes with it: what it does not keep packed is the float32 that it stands for. */
const settled = (weight: tf.Tensor | PackedWeight, columns: number): tf.Tensor | PackedWeight => {
  if (weight instanceof tf.Tensor || keepsPacked()) return weight
  const numbers = tf.tidy(() => unpack(weight, columns))
  formOf(weight).tensor.dispose()
  return numbers
}

/** A module's planned tensors by path, in the precision of the options. Paths in the plan may have a prefix that the module has not. */
export const readTensors = async (
  files: TensorFiles,
  module: Module,
  plan: readonly Planned[],
  options: LoadModelOptions,
  prefix = ''
) => {
  const total = plan.reduce((n, tensor) => n + plannedBytes(tensor), 0)
  const tensors = new Map<string, tf.Tensor | PackedWeight>()
  const columns = new Map(declarations(module).map(([path, { shape }]) => [prefix + path, shape.at(-1)!]))
  const [pieces, forms] = [pieceReader(rangesOf(files)), formsOf(module, plan, options, prefix)]
  let done = 0
  try {
    for (const planned of largestFirst(plan)) {
      const [{ path }, form] = [splitForm(planned.key), forms(planned)]
      const tensor = uploadWhole(files, planned, form) ?? (await uploadInPieces(pieces(planned), planned, form))
      tensors.set(path, settled(tensor, columns.get(path)!))
      done += plannedBytes(planned)
      options.onProgress?.(done, total)
      await setImmediate() // timers and signals come through between tensors
    }
    return tensors
  } catch (error) {
    disposeParams(Object.fromEntries(tensors))
    throw error
  }
}

/** Opens the weights of a folder, from the cache where that is asked for, builds something of them, and closes them. */
export const openAndBuild =
  <A>(
    dir: string,
    options: LoadModelOptions,
    build: (checkpoint: OpenCheckpoint, options: LoadModelOptions) => Promise<E.Either<Issues, A>>
  ): TaskEither<Issues, A> =>
  async () => {
    precisionOf(options) // throws for what there is not before any file is opened
    const from = await cachedWeights(dir, options)()
    if (E.isLeft(from)) return from
    const checkpoint = await openCheckpoint(from.right.dir, options)()
    if (E.isLeft(checkpoint)) return checkpoint
    try {
      return await build(checkpoint.right, from.right.options)
    } catch (error) {
      return E.left(readingIssues(from.right.dir, error))
    } finally {
      await checkpoint.right.files.close()
    }
  }

const buildModel = async (checkpoint: OpenCheckpoint, options: LoadModelOptions): Promise<E.Either<Issues, LoadedModel>> => {
  const { dir, config, layout, files, plan } = checkpoint
  const module = internVL(config)
  const problems = [...keyIssues(module, plan), ...precisionIssues(plan, options)]
  if (problems.length > 0) return E.left(inFolder(dir, problems))
  const short = await checkMemory(module, plan, options)
  if (short) return E.left(inFolder(dir, [short]))
  const tensors = await readTensors(files, module, plan, options)
  const params = buildParams(module, (path) => tensors.get(path)!)
  const dispose = () => disposeParams(params)
  return E.right({ config, layout, module, params, model: module.apply(params), dispose })
}

/**
 * Opens a checkpoint folder in any layout: config.json, then its safetensors, one tensor at a time, in float32 or the precision that
 * is asked for. All that is missing, unexpected or of another shape is reported together. Call `selectEngine` first. Throws a
 * `RangeError` for a precision that there is not.
 */
export const loadModel = (dir: string, options: LoadModelOptions = {}): TaskEither<Issues, LoadedModel> =>
  openAndBuild(dir, options, buildModel)
