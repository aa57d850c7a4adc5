import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import type { FloatDtype, StoredDtype } from '../../lib/dtype.js'
import type { Issue, Issues } from '../../lib/error.js'
import { declarations } from '../../lib/params.js'
import { rowWords } from '../../lib/quantization/formats.js'
import { type SmallFiles, type TensorSource, type WriteOptions, writeCheckpointTensors } from '../../lib/safetensors/write.js'
import type { Json } from '../config/config-fields.js'
import { configText } from '../config/config-json.js'
import type { InternVLConfig } from '../config/parse-config.js'
import { configJson, settleLayout } from '../config/translate-config.js'
import { internVL } from '../internvl/internvl.js'
import { type Dtype, formsOfKeys, type PrecisionOptions, precisionOf } from '../quantization/precision.js'
import { isPacked, isStoredForm, type StoredForm, splitForm, withPackedNote } from '../quantization/quantized-keys.js'
import { packed, retyped, unpacked } from '../quantization/requantize.js'
import { packableSizes, precisionIssues } from '../quantization/weight-formats.js'
import { composePlans, type Layout, type Planned, planFile } from './layout.js'
import { inFolder, keyIssues, type OpenCheckpoint, rangesOf } from './open-checkpoint.js'
import { pieceReader, plannedBytes } from './read-planned.js'
import { type WeightType, weightTypes } from './save-model.js'
import { type Changes, changedPieces } from './weight-changes.js'

export interface ConvertModelOptions extends Pick<WriteOptions, 'shardBytes'>, Pick<PrecisionOptions, 'quantize'> {
  readonly layout: Layout
  /** Type of the weights; each tensor keeps its own unless given. With `quantize`, of the weights that it leaves as they are. */
  readonly dtype?: WeightType | undefined
  readonly files?: SmallFiles
  /** Tensors of the module tree that are written with other numbers. */
  readonly changes?: Changes
  /** Told after each piece: bytes read so far, and of all. */
  readonly onProgress?: (done: number, total: number) => void
}

const isFloat = (dtype: StoredDtype): boolean => /^(B?F)\d/.test(dtype)

/** Tells how far the reading is. */
async function* counted(pieces: AsyncIterable<Uint8Array>, count: (bytes: number) => void): AsyncGenerator<Uint8Array> {
  for await (const piece of pieces) {
    yield piece
    count(piece.byteLength)
  }
}

/** What becomes of a tensor: the type or the form that it is written in, by its key in the module tree. */
type Target = (key: string, dtype: StoredDtype) => StoredDtype | StoredForm

const targetOf = (config: InternVLConfig, { dtype, quantize }: ConvertModelOptions): Target => {
  const type = dtype && weightTypes[dtype]
  if (quantize === undefined)
    return (key, stored) => (splitForm(key).form ? (type ?? splitForm(key).form!) : type && isFloat(stored) ? type : stored)
  const precision = precisionOf({ dtype: dtype as Dtype, quantize })
  const packable = packableSizes(internVL(config))
  const formOf = formsOfKeys(precision, packable)
  const types = { bf16: 'BF16', float32: 'F32', int8: 'int8', int6: 'int6', int4: 'int4' } as const
  // norms and biases keep their type: they are computed with in float32
  return (key, stored) => (packable.has(key) ? types[formOf(key, stored) ?? 'float32'] : stored)
}

/** A planned tensor as it is written. `columns` are the weights of a row. */
const sourceOf = (planned: Planned, pieces: Pieces, columns: number, target: ReturnType<Target>): TensorSource => {
  const [{ path, form }, { dtype }] = [splitForm(planned.key), planned]
  const rows = planned.shape[0] ?? 1
  if (form && form !== target) {
    const type = target as FloatDtype
    return { key: path, dtype: type, shape: [rows, columns], bytes: () => unpacked(pieces(), form, columns, type) }
  }
  if (form) return { ...planned, bytes: pieces }
  if (!isStoredForm(target)) return { ...planned, dtype: target, bytes: () => retyped(pieces(), dtype, target) }
  const shape = [rows, rowWords(target, columns)]
  return { key: `${path}.${target}`, dtype: 'I32', shape, bytes: () => packed(pieces(), dtype, columns, target) }
}

type Pieces = () => AsyncIterable<Uint8Array>

/** A tensor that is written, and its key in the module tree, which names its form. */
interface Written {
  readonly key: string
  readonly source: TensorSource
}

/** What is written: `renamed` of the tensors of the module tree, `plan` of those of the files. */
const writtenOf = (
  { files, config }: OpenCheckpoint,
  renamed: readonly Planned[],
  plan: readonly Planned[],
  options: ConvertModelOptions
): readonly Written[] => {
  const read = pieceReader(rangesOf(files))
  const total = plan.reduce((n, tensor) => n + plannedBytes(tensor), 0)
  const shapes = new Map(declarations(internVL(config)).map(([key, { shape }]) => [key, shape]))
  const target = targetOf(config, options)
  let done = 0
  const count = (bytes: number) => {
    done += bytes
    options.onProgress?.(done, total)
  }
  return plan.map((planned, i) => {
    const key = renamed[i]!.parts[0]?.source ?? planned.key
    const { path } = splitForm(key)
    const columns = shapes.get(path)?.at(-1) ?? 1
    const pieces = () => counted(read(planned), count)
    const [change, wanted] = [changedPieces(renamed[i]!, options.changes ?? new Map()), target(key, planned.dtype)]
    const source = change
      ? sourceOf({ ...planned, dtype: 'F32' }, () => change(pieces()), columns, wanted)
      : sourceOf(planned, pieces, columns, wanted)
    const { form } = splitForm(source.key)
    return { key: form ? `${path}.${form}` : path, source }
  })
}

/** config.json of what is written. Source weights that were packed are so no more, unless their keys still say it. */
const jsonOf = (json: Json, stored: readonly Planned[], written: readonly Written[]): Json => {
  const isNew = stored.some(({ mxfp4 }) => mxfp4) || isPacked(stored) || isPacked(written)
  return isNew
    ? withPackedNote(
        json,
        written.map(({ key }) => key)
      )
    : json
}

/**
 * Writes an open checkpoint in another layout, or type, or both, or in fewer bits: config.json in the dialect of the layout, and the
 * weights piece by piece, so that memory does not depend on their size. Packed weights stay so, unless `dtype` wants numbers of
 * them. `files` are written beside them. The layout that was written, which for `original` may be InternLM2's.
 * Errors: keys that are not the model's, `ConfigUntranslatable`, `KeyUnmapped`, `PackedAlready`, `WriteFailed`. Throws a
 * `RangeError` for a precision that there is not.
 */
export const convertModel = (from: OpenCheckpoint, dir: string, options: ConvertModelOptions): TaskEither<Issues, Layout> => {
  const { config, plan } = from
  const stored = options.quantize === undefined ? from.stored : plan // a copy of the table would no longer be equal to it
  const layout = settleLayout(options.layout, from.json)
  return async () => {
    const wrong = [...keyIssues(internVL(config), plan), ...precisionIssues(plan, options)]
    const made = E.map((renamed: readonly Planned[]) => writtenOf(from, renamed, composePlans(stored, renamed), options))(
      planFile(layout, stored, config.textConfig)
    )
    const written = E.isRight(made) ? made.right : []
    const sources = written.map(({ source }) => source)
    const isHalf = options.quantize !== undefined && sources.some(({ dtype }) => dtype === 'BF16')
    const dtype = options.dtype ?? (isHalf ? 'bfloat16' : config.dtype)
    const json = configJson({ ...config, dtype }, layout, jsonOf(from.json, stored, written), true)
    const issues = [...wrong, ...[json, made].flatMap((x): readonly Issue[] => (E.isLeft(x) ? x.left : []))]
    if (E.isLeft(json) || issues.length > 0) return E.left(inFolder(from.dir, issues))
    const files = new Map([...(options.files ?? []), ['config.json', configText(json.right)] as const])
    const { shardBytes } = options
    const done = await writeCheckpointTensors(dir, sources, { files, ...(shardBytes ? { shardBytes } : {}) })()
    return E.map(() => layout)(done)
  }
}
