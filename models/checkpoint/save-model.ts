import { sequenceS } from 'fp-ts/lib/Apply.js'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { bytesOf, type FloatDtype, fromFloat32 } from '../../lib/dtype.js'
import { type Issues, validation } from '../../lib/error.js'
import { declarations, namedParameters, type StateDict } from '../../lib/params.js'
import { dequantizeRows, halfDtypes } from '../../lib/quantization/formats.js'
import { type SidecarFiles, type TensorSource, type WriteOptions, writeCheckpointTensors } from '../../lib/safetensors/write.js'
import type { Json } from '../config/config-fields.js'
import { configText } from '../config/config-json.js'
import type { InternVLConfig } from '../config/model-config.js'
import { configJson, settleLayout } from '../config/translate-config.js'
import { modelFor } from '../families.js'
import { splitFormat, splitHalf, withQuantizationNote } from '../quantization/quantized-keys.js'
import { type Described, type Layout, type Planned, planFile } from './layout.js'
import { type ReadRange, readPlanned } from './read-planned.js'

/** Types that weights are saved in, by their names in config.json. */
export const weightTypes = { float32: 'F32', bfloat16: 'BF16', float16: 'F16' } as const satisfies Record<string, FloatDtype>
export type WeightType = keyof typeof weightTypes

export interface SaveModelOptions extends Pick<WriteOptions, 'shardBytes'> {
  readonly config: InternVLConfig
  /** The parameters, as a tree or as a flat record under the tree's keys. The caller keeps and disposes them. */
  readonly params?: unknown
  readonly tensors?: StateDict
  /**
   * Type of the weights on disk: `float32` by default, and `bfloat16` or `float16` for weights that are in memory in that type. Quantized
   * weights are written unchanged.
   */
  readonly dtype?: WeightType
  /** `hf` by default. */
  readonly layout?: Layout
  /** A config.json whose fields that this library does not know are kept. */
  readonly json?: Json
  /** Further files of the folder: tokenizer, processor, generation defaults. */
  readonly files?: SidecarFiles
}

/** A leaf of a parameter tree, as written to a file. */
interface Leaf extends Described {
  readonly bytes: () => Promise<Uint8Array>
}

/** Length of the last axis of every declared parameter, by path. */
export const rowLengths = (config: InternVLConfig): ReadonlyMap<string, number> =>
  new Map(declarations(modelFor(config)).map(([path, { shape }]) => [path, shape.at(-1) ?? 1]))

/**
 * The leaves by their keys in a file: int8 and int4 as their packed int32 data; float32, bfloat16 and float16 in `type`, by default F32,
 * BF16 and F16.
 */
const leavesOf = (tensors: StateDict, config: InternVLConfig, type: FloatDtype | undefined): readonly Leaf[] => {
  const lengths = rowLengths(config)
  return Object.entries(tensors).map(([key, tensor]): Leaf => {
    if (splitFormat(key).format)
      return { key, dtype: 'I32', shape: tensor.shape, bytes: async () => bytesOf((await tensor.data()) as Int32Array) }
    const { path, half } = splitHalf(key)
    const columns = lengths.get(path) ?? 0
    const dtype = type ?? (half ? halfDtypes[half] : 'F32')
    const values = async () => {
      const data = await tensor.data()
      return half ? dequantizeRows(half, data as Int32Array, columns) : (data as Float32Array)
    }
    const shape = half ? [tensor.shape[0]!, columns] : tensor.shape
    return { key: path, dtype, shape, bytes: async () => fromFloat32(await values(), dtype) }
  })
}

/** Reads ranges of leaves. The bytes of a leaf are cached until `clear`, because a fused tensor reads ranges of leaves in turn. */
const leafReader = (leaves: readonly Leaf[]): { readonly read: ReadRange; readonly clear: () => void } => {
  const byKey = new Map(leaves.map((leaf) => [leaf.key, leaf]))
  const cached = new Map<string, Promise<Uint8Array>>()
  const read: ReadRange = async (key, begin, end, into) => {
    const bytes = cached.get(key) ?? byKey.get(key)!.bytes()
    cached.set(key, bytes)
    const range = (await bytes).subarray(begin, end)
    into?.set(range)
    return into ?? range
  }
  return { read, clear: () => cached.clear() }
}

const sourcesOf = (
  leaves: readonly Leaf[],
  layout: Layout,
  config: InternVLConfig
): E.Either<Issues, readonly TensorSource[]> => {
  const { read, clear } = leafReader(leaves)
  const toSource = (planned: Planned): TensorSource => ({
    ...planned,
    bytes: async () => {
      clear()
      return readPlanned(planned, read)
    }
  })
  return pipe(
    planFile(layout, leaves, config.textConfig),
    E.map((plan) => plan.map(toSource))
  )
}

/**
 * Writes a model as a checkpoint folder: config.json in the dialect of the layout, safetensors with an index where there are
 * several, and `files`. The folder replaces an existing one at once (see `writeCheckpointTensors`).
 * Errors: `WriteFailed`, `KeyUnmapped`, `FusedIncomplete`, `FusedShape`, `ConfigUntranslatable`.
 */
export const saveModel =
  (
    dir: string,
    { config, params, files = new Map(), json: present = {}, shardBytes, ...options }: SaveModelOptions
  ): TE.TaskEither<Issues, void> =>
  async () => {
    const layout = settleLayout(options.layout ?? 'hf', config, present)
    const tensors = options.tensors ?? Object.fromEntries(namedParameters(params))
    const halves = new Set(Object.keys(tensors).map((key) => splitHalf(key).half))
    const dtype = options.dtype ?? (halves.has('bf16') ? 'bfloat16' : halves.has('f16') ? 'float16' : 'float32')
    const json = withQuantizationNote(present, Object.keys(tensors))
    return pipe(
      sequenceS(validation)({
        json: configJson({ ...config, dtype }, layout, json),
        sources: sourcesOf(leavesOf(tensors, config, options.dtype && weightTypes[options.dtype]), layout, config)
      }),
      TE.fromEither,
      TE.chain(({ json, sources }) =>
        writeCheckpointTensors(dir, sources, {
          files: new Map([...files, ['config.json', configText(json)] as const]),
          ...(shardBytes ? { shardBytes } : {})
        })
      )
    )()
  }
