import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { type FloatDtype, fromFloat32 } from '../lib/dtype.js'
import type { Fault, Faults } from '../lib/fault.js'
import { namedParameters, type StateDict } from '../lib/params.js'
import { type SmallFiles, type TensorSource, type WriteOptions, writeCheckpointTensors } from '../lib/safetensors-write.js'
import { type Described, type Layout, type Planned, planFile } from './checkpoint.js'
import { type ReadRange, readPlanned } from './checkpoint-read.js'
import type { InternVLConfig } from './config.js'
import type { Json } from './config-fields.js'
import { configText } from './config-json.js'
import { configJson, settleLayout } from './config-translate.js'

/** Names of the types that weights are saved in, as config.json has them. */
export const weightTypes = { float32: 'F32', bfloat16: 'BF16', float16: 'F16' } as const satisfies Record<string, FloatDtype>
export type WeightType = keyof typeof weightTypes

export interface SaveModelOptions extends Pick<WriteOptions, 'shardBytes'> {
  readonly config: InternVLConfig
  /** The parameters, as a tree or flat under the tree's keys. They stay the caller's. */
  readonly params?: unknown
  readonly tensors?: StateDict
  /** Type of the weights on disk: `float32` unless given. */
  readonly dtype?: WeightType
  /** `hf` unless given. */
  readonly layout?: Layout
  /** A config.json whose fields that this library does not know are kept. */
  readonly json?: Json
  /** Further files of the folder: tokenizer, processor, generation defaults. */
  readonly files?: SmallFiles
}

/** The tensors' bytes on request; those last asked for are kept, for a fused tensor asks for parts in turns. */
const rangesOf = (tensors: StateDict, dtype: FloatDtype): { readonly read: ReadRange; readonly forget: () => void } => {
  const made = new Map<string, Promise<Uint8Array>>()
  const make = async (key: string) => fromFloat32((await tensors[key]!.data()) as Float32Array, dtype)
  const read: ReadRange = async (key, begin, end, into) => {
    const bytes = made.get(key) ?? make(key)
    made.set(key, bytes)
    const part = (await bytes).subarray(begin, end)
    into?.set(part)
    return into ?? part
  }
  return { read, forget: () => made.clear() }
}

const sourcesOf = (tensors: StateDict, dtype: FloatDtype, layout: Layout, config: InternVLConfig) => {
  const described = Object.entries(tensors).map(([key, { shape }]): Described => ({ key, dtype, shape }))
  const { read, forget } = rangesOf(tensors, dtype)
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
  )(planFile(layout, described, config.textConfig))
}

/**
 * Writes a model as a checkpoint folder: config.json in the dialect of the layout, safetensors with an index where there are
 * several, and `files`. It takes the place of what is there at once (see `writeCheckpointTensors`).
 * Faults: `WriteFailed`, `KeyUnmapped`, `FusedIncomplete`, `FusedShape`, `ConfigUntranslatable`.
 */
export const saveModel =
  (
    dir: string,
    { config, params, dtype = 'float32', files = new Map(), json = {}, ...options }: SaveModelOptions
  ): TaskEither<Faults, void> =>
  async () => {
    const layout = settleLayout(options.layout ?? 'hf', json)
    const tensors = options.tensors ?? Object.fromEntries(namedParameters(params))
    const written = configJson({ ...config, dtype }, layout, json)
    const sources = sourcesOf(tensors, weightTypes[dtype], layout, config)
    if (E.isLeft(written) || E.isLeft(sources))
      return E.left([written, sources].flatMap((x): readonly Fault[] => (E.isLeft(x) ? x.left : [])) as unknown as Faults)
    const all = new Map([...files, ['config.json', configText(written.right)] as const])
    const { shardBytes } = options
    return writeCheckpointTensors(dir, sources.right, { files: all, ...(shardBytes ? { shardBytes } : {}) })()
  }
