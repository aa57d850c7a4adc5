import { setImmediate } from 'node:timers/promises'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { InternVLError, type Issues, issue, whenValid } from '../../lib/error.js'
import type { Module } from '../../lib/module.js'
import { hasKernel, runKernel } from '../../lib/ops/kernel.js'
import { buildParams, declarations, disposeParams } from '../../lib/params.js'
import {
  dequantize,
  keepsQuantized,
  type QuantizationFormat,
  type QuantizedWeight,
  formatOf as quantizationOf
} from '../../lib/quantization/formats.js'
import type { TensorFiles } from '../../lib/safetensors/read.js'
import {
  type Chunks,
  uploadChunks,
  uploadPackedRange,
  uploadPackedRows,
  uploadQuantized,
  uploadRange
} from '../../lib/safetensors/upload.js'
import { tf } from '../../lib/tf.js'
import type { InternVLConfig } from '../config/model-config.js'
import { modelFor } from '../families.js'
import type { InternVL } from '../internvl/internvl.js'
import type { InternVLModule } from '../model-family.js'
import { withActivations } from '../quantization/activations.js'
import { defaultKVCacheType, withKVCacheType } from '../quantization/kv-cache-type.js'
import { type PrecisionOptions, precisionOf, storedFormat } from '../quantization/precision.js'
import { type CacheOptions, cachedWeights } from '../quantization/quantized-cache.js'
import { splitFormat } from '../quantization/quantized-keys.js'
import { precisionIssues, type WeightFormatOptions, weightFormats } from '../quantization/weight-formats.js'
import type { Layout, Planned } from './layout.js'
import { checkMemory, type MemoryOptions } from './memory-check.js'
import {
  keyIssues,
  type OpenCheckpoint,
  type OpenOptions,
  openCheckpoint,
  rangesOf,
  readingIssues,
  withFolder
} from './open-checkpoint.js'
import { pieceReader, plannedBytes } from './read-planned.js'
import { stackExperts } from './split-experts.js'

export type { InternVLModule } from '../model-family.js'
export type InternVLParams = Parameters<InternVLModule['apply']>[0]

/** A model loaded from a folder. `dispose` frees its parameters. */
export interface LoadedModel {
  readonly config: InternVLConfig
  /** Layout of the files: names and fusions of the tensors. */
  readonly layout: Layout
  readonly module: InternVLModule
  readonly params: InternVLParams
  readonly model: InternVL
  readonly dispose: () => void
}

export interface LoadModelOptions extends OpenOptions, WeightFormatOptions, CacheOptions, MemoryOptions {
  /** Called after each tensor with the bytes read so far and in total. With `cache`, the first time, for quantizing and then for loading. */
  readonly onProgress?: (done: number, total: number) => void
}

/** Largest tensors first: temporary memory of a large tensor then adds to few loaded tensors, not to all. */
const largestFirst = (plan: readonly Planned[]): readonly Planned[] => [...plan].sort((a, b) => plannedBytes(b) - plannedBytes(a))

/** Uploads a tensor that is one range of a file, if the engine can read files; undefined otherwise. */
const uploadFromFile = (files: TensorFiles, { key, parts, dtype, shape, mxfp4 }: Planned, format?: QuantizationFormat) => {
  const [part, ...others] = parts
  if (!part || others.length > 0 || mxfp4) return undefined
  const { file, offset } = files.entries.get(part.source)!
  const handle = files.handles.get(file)
  if (!handle) return undefined // dequantized while it is read
  const [fd, begin] = [handle.fd, offset + part.begin]
  const stored = splitFormat(key).format
  try {
    return stored ? uploadPackedRange(fd, begin, shape as Matrix, stored) : uploadRange(fd, begin, dtype, shape, format)
  } catch (error) {
    const message = `${file}: tensor ${key} cannot be read (${(error as Error).message}); did the file change since it was opened?`
    throw new InternVLError([issue('FileUnreadable', message, { file, key })])
  }
}

type Matrix = readonly [rows: number, columns: number]

const uploadInPieces = (
  pieces: Chunks,
  { key, dtype, shape }: Planned,
  format?: QuantizationFormat
): Promise<tf.Tensor | QuantizedWeight> => {
  const stored = splitFormat(key).format
  if (stored) return uploadPackedRows(pieces, shape as Matrix, stored)
  return format ? uploadQuantized(pieces, dtype, shape as Matrix, format) : uploadChunks(pieces, dtype, shape)
}

/** The weight in the memory of the device. */
const toDevice = (weight: tf.Tensor | QuantizedWeight): tf.Tensor | QuantizedWeight => {
  const isFloat = weight instanceof tf.Tensor
  const { format, tensor } = isFloat ? { format: '', tensor: weight as tf.Tensor } : quantizationOf(weight)
  const moved = runKernel<tf.Tensor>('ToDevice', { x: tensor }, {})
  tensor.dispose()
  return isFloat ? moved : ({ [format]: moved } as unknown as QuantizedWeight)
}

/** The weight itself on engines that compute with quantized weights, else the weight dequantized to float32. */
const asEngineNeeds = (weight: tf.Tensor | QuantizedWeight, columns: number): tf.Tensor | QuantizedWeight => {
  if (hasKernel('ToDevice')) return toDevice(weight)
  if (weight instanceof tf.Tensor || keepsQuantized(quantizationOf(weight).format as QuantizationFormat)) return weight
  const values = tf.tidy(() => dequantize(weight, columns))
  quantizationOf(weight).tensor.dispose()
  return values
}

/** The format to read a tensor in: float32 where the engine would widen its stored type again. */
const readFormat = ({ dtype }: Planned, format: QuantizationFormat | undefined): QuantizationFormat | undefined =>
  format && format === storedFormat(dtype) && !keepsQuantized(format) ? undefined : format

/** Reads a module's planned tensors in the precision of the options; by key, which is the module's path after `prefix`. */
const readTensors = async (
  files: TensorFiles,
  module: Module,
  plan: readonly Planned[],
  options: LoadModelOptions,
  prefix = ''
) => {
  const total = plan.reduce((n, tensor) => n + plannedBytes(tensor), 0)
  const tensors = new Map<string, tf.Tensor | QuantizedWeight>()
  const columns = new Map(declarations(module).map(([path, { shape }]) => [prefix + path, shape.at(-1)!]))
  const [readPieces, formatOf] = [pieceReader(rangesOf(files)), weightFormats(module, plan, options, prefix)]
  let done = 0
  try {
    for (const planned of largestFirst(plan)) {
      const [{ path }, format] = [splitFormat(planned.key), readFormat(planned, formatOf(planned))]
      const tensor = uploadFromFile(files, planned, format) ?? (await uploadInPieces(readPieces(planned), planned, format))
      tensors.set(path, asEngineNeeds(tensor, columns.get(path)!))
      done += plannedBytes(planned)
      options.onProgress?.(done, total)
      await setImmediate() // lets timers and signals run between tensors
    }
    stackExperts(tensors)
    return tensors
  } catch (error) {
    disposeParams(Object.fromEntries(tensors))
    throw error
  }
}

/**
 * The tensors of a module by key, after a check of keys, precision and memory. `prefix` is the path of the module in the model.
 * Errors, before any weight is read: `MissingKey`, `UnexpectedKey`, `ShapeMismatch`, `QuantizedAlready`, `MemoryShort`.
 */
export const loadTensors = (
  { dir, files }: OpenCheckpoint,
  module: Module,
  plan: readonly Planned[],
  options: LoadModelOptions,
  prefix = ''
) => {
  const checked = pipe(
    TE.fromEither(whenValid([...keyIssues(module, plan, prefix), ...precisionIssues(plan, options)], () => undefined)),
    TE.chain(() => checkMemory(module, plan, options, prefix))
  )
  return pipe(
    async () => withFolder(dir, await checked()),
    TE.chainTaskK(() => () => readTensors(files, module, plan, options, prefix))
  )
}

/** Opens a folder, from the cache if the options say so, builds a value from its weights, and closes the folder. */
export const openAndBuild = <A>(
  dir: string,
  options: LoadModelOptions,
  build: (checkpoint: OpenCheckpoint, options: LoadModelOptions) => TE.TaskEither<Issues, A>
): TE.TaskEither<Issues, A> => {
  const opened = async () => {
    precisionOf(options) // throws for an unknown precision before any file is opened
    return cachedWeights(dir, options)()
  }
  return pipe(
    opened,
    TE.chain((from) =>
      TE.bracket(
        openCheckpoint(from.dir, options),
        (checkpoint) => () =>
          build(checkpoint, from.options)().catch((error): E.Either<Issues, A> => E.left(readingIssues(from.dir, error))),
        ({ files }) => TE.rightTask(() => files.close())
      )
    )
  )
}

/** The model of a module and its parameters, with the types of activations and of the KV cache that the options say. */
export const bindModel = (
  module: InternVLModule,
  params: InternVLParams,
  { activations, kvCache }: PrecisionOptions
): InternVL => {
  const bound = withActivations(module.apply(params), activations, params)
  return withKVCacheType(bound, kvCache ?? defaultKVCacheType(params, activations))
}

const buildModel = (checkpoint: OpenCheckpoint, options: LoadModelOptions): TE.TaskEither<Issues, LoadedModel> => {
  const { config, layout, plan } = checkpoint
  const module = modelFor(config)
  return pipe(
    loadTensors(checkpoint, module, plan, options),
    TE.map((tensors) => {
      const params = buildParams(module, (path) => tensors.get(path)!)
      const model = bindModel(module, params, options)
      return { config, layout, module, params, model, dispose: () => disposeParams(params) }
    })
  )
}

/**
 * Loads the model of a checkpoint folder in any layout: config.json, then the weights, one tensor at a time, in float32 or the
 * precision of the options. All missing, unexpected and mismatched tensors are reported together. Call `selectEngine` first.
 * Throws a `RangeError` for an unknown precision.
 */
export const loadModel = (dir: string, options: LoadModelOptions = {}): TE.TaskEither<Issues, LoadedModel> =>
  openAndBuild(dir, options, buildModel)
