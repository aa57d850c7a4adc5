import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { type FloatDtype, fromFloat32 } from '../../lib/dtype.js'
import type { Issue, Issues } from '../../lib/error.js'
import { declarations, namedParameters, type StateDict } from '../../lib/params.js'
import { unpackRows } from '../../lib/quantization/formats.js'
import { type SmallFiles, type TensorSource, type WriteOptions, writeCheckpointTensors } from '../../lib/safetensors/write.js'
import type { Json } from '../config/config-fields.js'
import { configText } from '../config/config-json.js'
import type { InternVLConfig } from '../config/parse-config.js'
import { configJson, settleLayout } from '../config/translate-config.js'
import { internVL } from '../internvl/internvl.js'
import { splitForm, withPackedNote } from '../quantization/quantized-keys.js'
import { type Described, type Layout, type Planned, planFile } from './layout.js'
import { type ReadRange, readPlanned } from './read-planned.js'

/** Names of the types that weights are saved in, as config.json has them. */
export const weightTypes = { float32: 'F32', bfloat16: 'BF16', float16: 'F16' } as const satisfies Record<string, FloatDtype>
export type WeightType = keyof typeof weightTypes

export interface SaveModelOptions extends Pick<WriteOptions, 'shardBytes'> {
  readonly config: InternVLConfig
  /** The parameters, as a tree or flat under the tree's keys. They stay the caller's. */
  readonly params?: unknown
  readonly tensors?: StateDict
  /**
   * Type of the weights on disk: unless given `float32`, and `bfloat16` for those that lie so in memory. Weights in int8 and 4 bits
   * are written as they are.
   */
  readonly dtype?: WeightType
  /** `hf` unless given. */
  readonly layout?: Layout
  /** A config.json whose fields that this library does not know are kept. */
  readonly json?: Json
  /** Further files of the folder: tokenizer, processor, generation defaults. */
  readonly files?: SmallFiles
}

/** A leaf of a parameter tree as it is written. */
interface Leaf extends Described {
  readonly bytes: () => Promise<Uint8Array>
}

const bytesOf = ({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength)

/**
 * Leaves by their keys in a file: int8 and int4 as the words they are; float32 in the type of the weights, and so is bf16, which is
 * BF16 where no type is given.
 */
const leavesOf = (tensors: StateDict, config: InternVLConfig, type: FloatDtype | undefined): readonly Leaf[] => {
  const shapes = new Map(declarations(internVL(config)).map(([key, { shape }]) => [key, shape]))
  return Object.entries(tensors).map(([key, tensor]): Leaf => {
    if (splitForm(key).form)
      return { key, dtype: 'I32', shape: tensor.shape, bytes: async () => bytesOf((await tensor.data()) as Int32Array) }
    const path = key.replace(/\.bf16$/, '')
    const columns = shapes.get(path)?.at(-1) ?? 0
    const dtype = type ?? (path === key ? 'F32' : 'BF16')
    const numbers = async () => {
      const data = await tensor.data()
      return path === key ? (data as Float32Array) : unpackRows('bf16', data as Int32Array, columns)
    }
    const shape = path === key ? tensor.shape : [tensor.shape[0]!, columns]
    return { key: path, dtype, shape, bytes: async () => fromFloat32(await numbers(), dtype) }
  })
}

/** The leaves' bytes on request; those last asked for are kept, for a fused tensor asks for parts in turns. */
const rangesOf = (leaves: readonly Leaf[]): { readonly read: ReadRange; readonly forget: () => void } => {
  const byKey = new Map(leaves.map((leaf) => [leaf.key, leaf]))
  const made = new Map<string, Promise<Uint8Array>>()
  const read: ReadRange = async (key, begin, end, into) => {
    const bytes = made.get(key) ?? byKey.get(key)!.bytes()
    made.set(key, bytes)
    const part = (await bytes).subarray(begin, end)
    into?.set(part)
    return into ?? part
  }
  return { read, forget: () => made.clear() }
}

const sourcesOf = (leaves: readonly Leaf[], layout: Layout, config: InternVLConfig) => {
  const { read, forget } = rangesOf(leaves)
  return E.map((plan: readonly Planned[]) =>
    plan.map(
      (planned): TensorSource => ({
        ...planned,
        bytes: async () => {
          forget()
          return readPlanned(planned, read)
        }
      })
    )
  )(planFile(layout, leaves, config.textConfig))
}

/**
 * Writes a model as a checkpoint folder: config.json in the dialect of the layout, safetensors with an index where there are
 * several, and `files`. It takes the place of what is there at once (see `writeCheckpointTensors`).
 * Errors: `WriteFailed`, `KeyUnmapped`, `FusedIncomplete`, `FusedShape`, `ConfigUntranslatable`.
 */
export const saveModel =
  (
    dir: string,
    { config, params, files = new Map(), json: given = {}, ...options }: SaveModelOptions
  ): TaskEither<Issues, void> =>
  async () => {
    const layout = settleLayout(options.layout ?? 'hf', given)
    const tensors = options.tensors ?? Object.fromEntries(namedParameters(params))
    const isHalf = Object.keys(tensors).some((key) => key.endsWith('.bf16'))
    const dtype = options.dtype ?? (isHalf ? 'bfloat16' : 'float32')
    const json = withPackedNote(given, Object.keys(tensors))
    const written = configJson({ ...config, dtype }, layout, json)
    const sources = sourcesOf(leavesOf(tensors, config, options.dtype && weightTypes[options.dtype]), layout, config)
    if (E.isLeft(written) || E.isLeft(sources))
      return E.left([written, sources].flatMap((x): readonly Issue[] => (E.isLeft(x) ? x.left : [])) as unknown as Issues)
    const all = new Map([...files, ['config.json', configText(written.right)] as const])
    const { shardBytes } = options
    return writeCheckpointTensors(dir, sources.right, { files: all, ...(shardBytes ? { shardBytes } : {}) })()
  }
