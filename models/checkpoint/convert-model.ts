import { sequenceS } from 'fp-ts/lib/Apply.js'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import type { FloatDtype, StoredDtype } from '../../lib/dtype.js'
import { type Issues, validation, whenValid } from '../../lib/error.js'
import { halfDtypes, packedRowLength } from '../../lib/quantization/formats.js'
import { type SidecarFiles, type TensorSource, type WriteOptions, writeCheckpointTensors } from '../../lib/safetensors/write.js'
import type { Json } from '../config/config-fields.js'
import { configText } from '../config/config-json.js'
import type { InternVLConfig } from '../config/model-config.js'
import { configJson, settleLayout } from '../config/translate-config.js'
import { modelFor } from '../families.js'
import { type Dtype, formatsByKey, type PrecisionOptions, precisionOf } from '../quantization/precision.js'
import {
  isQuantized,
  isStoredFormat,
  type StoredFormat,
  splitFormat,
  withQuantizationNote
} from '../quantization/quantized-keys.js'
import { castPieces, dequantizePieces, quantizePieces } from '../quantization/requantize.js'
import { precisionIssues, quantizableSizes } from '../quantization/weight-formats.js'
import { composePlans, type Layout, type Planned, planFile } from './layout.js'
import { keyIssues, type OpenCheckpoint, rangesOf, withFolder } from './open-checkpoint.js'
import { pieceReader, plannedBytes } from './read-planned.js'
import { rowLengths, type WeightType, weightTypes } from './save-model.js'
import { changedPieces, type WeightChanges } from './weight-changes.js'

export interface ConvertModelOptions extends Pick<WriteOptions, 'shardBytes'>, Pick<PrecisionOptions, 'quantize'> {
  readonly layout: Layout
  /** Type of the weights; by default each tensor keeps its own. With `quantize`, the type of the weights that are not quantized. */
  readonly dtype?: WeightType | undefined
  readonly files?: SidecarFiles
  /** New values of weights, by path in the module tree. */
  readonly changes?: WeightChanges
  /** Called after each piece with the bytes read so far and in total. */
  readonly onProgress?: (done: number, total: number) => void
}

const isFloat = (dtype: StoredDtype): boolean => /^(B?F)\d/.test(dtype)

/** Passes pieces on and reports the size of each after use. */
async function* counted(pieces: AsyncIterable<Uint8Array>, count: (bytes: number) => void): AsyncGenerator<Uint8Array> {
  for await (const piece of pieces) {
    yield piece
    count(piece.byteLength)
  }
}

/** The type or quantization format to write a tensor in, by its key in the module tree. */
type TargetOf = (key: string, dtype: StoredDtype) => StoredDtype | StoredFormat

const targetsFor = (config: InternVLConfig, { dtype, quantize }: ConvertModelOptions): TargetOf => {
  const type = dtype && weightTypes[dtype]
  if (quantize === undefined)
    return (key, stored) => {
      const { format } = splitFormat(key)
      if (format) return type ?? format
      return type && isFloat(stored) ? type : stored
    }
  const sizes = quantizableSizes(modelFor(config))
  const formatOf = formatsByKey(precisionOf({ dtype: dtype as Dtype, quantize }), sizes)
  const types = { ...halfDtypes, float32: 'F32', int8: 'int8', int6: 'int6', int4: 'int4' } as const
  // norms and biases keep their type: they are float32 in memory
  return (key, stored) => (sizes.has(key) ? types[formatOf(key, stored) ?? 'float32'] : stored)
}

type Pieces = () => AsyncIterable<Uint8Array>

/** A planned tensor with rows of `columns` weights, converted to `target`. */
const sourceOf = (planned: Planned, pieces: Pieces, columns: number, target: ReturnType<TargetOf>): TensorSource => {
  const [{ path, format }, { dtype }] = [splitFormat(planned.key), planned]
  const rows = planned.shape[0] ?? 1
  if (format && format !== target) {
    const type = target as FloatDtype
    return { key: path, dtype: type, shape: [rows, columns], bytes: () => dequantizePieces(pieces(), format, columns, type) }
  }
  if (format) return { ...planned, bytes: pieces }
  if (!isStoredFormat(target)) return { ...planned, dtype: target, bytes: () => castPieces(pieces(), dtype, target) }
  const shape = [rows, packedRowLength(target, columns)]
  return { key: `${path}.${target}`, dtype: 'I32', shape, bytes: () => quantizePieces(pieces(), dtype, columns, target) }
}

/** A tensor to write, and its key in the module tree with the quantization format. */
interface Output {
  readonly key: string
  readonly source: TensorSource
}

/** The tensors to write. `fromTree` plans them from the tensors of the module tree, `fromFiles` from those of the files. */
const outputsOf = (
  { files, config }: OpenCheckpoint,
  fromTree: readonly Planned[],
  fromFiles: readonly Planned[],
  options: ConvertModelOptions
): readonly Output[] => {
  const read = pieceReader(rangesOf(files))
  const total = fromFiles.reduce((n, tensor) => n + plannedBytes(tensor), 0)
  const [lengths, targetOf, changes] = [rowLengths(config), targetsFor(config, options), options.changes ?? new Map()]
  let done = 0
  const count = (bytes: number) => {
    done += bytes
    options.onProgress?.(done, total)
  }
  return fromFiles.map((planned, i) => {
    const key = fromTree[i]!.parts[0]?.source ?? planned.key
    const { path } = splitFormat(key)
    const [columns, target] = [lengths.get(path) ?? 1, targetOf(key, planned.dtype)]
    const pieces = () => counted(read(planned), count)
    const change = changedPieces(fromTree[i]!, changes)
    const source = change
      ? sourceOf({ ...planned, dtype: 'F32' }, () => change(pieces()), columns, target)
      : sourceOf(planned, pieces, columns, target)
    const { format } = splitFormat(source.key)
    return { key: format ? `${path}.${format}` : path, source }
  })
}

/** config.json for the tensors to write. A note about quantized weights is kept only where it is still true. */
const notedJson = (json: Json, stored: readonly Planned[], outputs: readonly Output[]): Json => {
  const isChanged = stored.some(({ mxfp4 }) => mxfp4) || isQuantized(stored) || isQuantized(outputs)
  const keys = outputs.map(({ key }) => key)
  return isChanged ? withQuantizationNote(json, keys) : json
}

/** The type of the weights that config.json states. */
const writtenDtype = (config: InternVLConfig, { dtype, quantize }: ConvertModelOptions, outputs: readonly Output[]) => {
  const hasBfloat16 = quantize !== undefined && outputs.some(({ source }) => source.dtype === 'BF16')
  return dtype ?? (hasBfloat16 ? 'bfloat16' : config.dtype)
}

/**
 * Writes an open checkpoint in another layout, type or quantization: config.json in the dialect of the layout, and the weights piece
 * by piece, so that memory does not depend on their size. Quantized weights stay quantized, unless `dtype` is given. Returns the
 * layout written, which for `original` may be that of the decoder.
 * Errors: keys that are not the model's, `ConfigUntranslatable`, `KeyUnmapped`, `QuantizedAlready`, `WriteFailed`. Throws a
 * `RangeError` for an unknown precision.
 */
export const convertModel = (from: OpenCheckpoint, dir: string, options: ConvertModelOptions): TE.TaskEither<Issues, Layout> => {
  const { config, plan } = from
  const stored = options.quantize === undefined ? from.stored : plan // a quantized copy of the embeddings would not equal them
  const layout = settleLayout(options.layout, config, from.json)
  const outputs = () =>
    pipe(
      planFile(layout, stored, config.textConfig),
      E.map((fromTree) => outputsOf(from, fromTree, composePlans(stored, fromTree), options))
    )
  const withConfig = (outputs: readonly Output[]) =>
    pipe(
      configJson(
        { ...config, dtype: writtenDtype(config, options, outputs) },
        layout,
        notedJson(from.json, stored, outputs),
        true
      ),
      E.map((json) => ({ json, sources: outputs.map(({ source }) => source) }))
    )
  return async () => {
    const planned = outputs()
    const valid = sequenceS(validation)({
      keys: whenValid([...keyIssues(modelFor(config), plan), ...precisionIssues(plan, options)], () => undefined),
      outputs: planned,
      config: withConfig(E.getOrElse((): readonly Output[] => [])(planned))
    })
    const { shardBytes } = options
    return pipe(
      TE.fromEither(withFolder(from.dir, valid)),
      TE.chain(({ config: { json, sources } }) =>
        writeCheckpointTensors(dir, sources, {
          files: new Map([...(options.files ?? []), ['config.json', configText(json)] as const]),
          ...(shardBytes ? { shardBytes } : {})
        })
      ),
      TE.map(() => layout)
    )()
  }
}
