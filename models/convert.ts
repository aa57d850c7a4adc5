import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { type FloatDtype, fromFloat32, type StoredDtype, toFloat32 } from '../lib/dtype.js'
import type { Faults } from '../lib/fault.js'
import { type SmallFiles, type TensorSource, type WriteOptions, writeCheckpointTensors } from '../lib/safetensors-write.js'
import { composePlans, type Layout, type Planned, planFile } from './checkpoint.js'
import { pieceReader, plannedBytes } from './checkpoint-read.js'
import { isJson, type Json } from './config-fields.js'
import { configText } from './config-json.js'
import { configJson, settleLayout } from './config-translate.js'
import { internVL } from './internvl.js'
import { inFolder, keyFaults, type OpenCheckpoint, rangesOf } from './open.js'
import { type WeightType, weightTypes } from './save.js'

export interface ConvertModelOptions extends Pick<WriteOptions, 'shardBytes'> {
  readonly layout: Layout
  /** Type of the weights; each tensor keeps its own unless given. */
  readonly dtype?: WeightType | undefined
  readonly files?: SmallFiles
  /** Told after each piece: bytes read so far, and of all. */
  readonly onProgress?: (done: number, total: number) => void
}

const isFloat = (dtype: StoredDtype): boolean => /^(B?F)\d/.test(dtype)

/** Pieces of a tensor in another type. The same type is copied bit for bit. */
async function* retyped(pieces: AsyncIterable<Uint8Array>, from: StoredDtype, to: StoredDtype): AsyncGenerator<Uint8Array> {
  for await (const piece of pieces) yield from === to ? piece : fromFloat32(toFloat32(piece, from), to as FloatDtype)
}

/** Tells how far the reading is. */
async function* counted(pieces: AsyncIterable<Uint8Array>, count: (bytes: number) => void): AsyncGenerator<Uint8Array> {
  for await (const piece of pieces) {
    yield piece
    count(piece.byteLength)
  }
}

const sourcesOf = (
  { files }: OpenCheckpoint,
  plan: readonly Planned[],
  options: ConvertModelOptions
): readonly TensorSource[] => {
  const pieces = pieceReader(rangesOf(files))
  const total = plan.reduce((n, tensor) => n + plannedBytes(tensor), 0)
  let done = 0
  const count = (bytes: number) => {
    done += bytes
    options.onProgress?.(done, total)
  }
  return plan.map((planned) => {
    const { key, dtype: from, shape } = planned
    const dtype = options.dtype && isFloat(from) ? weightTypes[options.dtype] : from
    return { key, dtype, shape, bytes: () => retyped(counted(pieces(planned), count), from, dtype) }
  })
}

/** config.json without what it says of packed weights, where they are packed no more. */
const unpackedJson = (json: Json, plan: readonly Planned[]): Json => {
  if (!plan.some(({ mxfp4 }) => mxfp4)) return json
  const { quantization_config: _, ...rest } = json
  const parts = Object.entries(rest).map(([key, value]) => [key, isJson(value) ? unpackedJson(value, plan) : value])
  return Object.fromEntries(parts)
}

/**
 * Writes an open checkpoint in another layout, or type, or both: config.json in the dialect of the layout, and the weights piece by
 * piece, so that memory does not depend on their size. `files` are written beside them. The layout that was written, which for
 * `original` may be InternLM2's. Faults: keys that are not the model's, `ConfigUntranslatable`, `KeyUnmapped`, `WriteFailed`.
 */
export const convertModel =
  (from: OpenCheckpoint, dir: string, options: ConvertModelOptions): TaskEither<Faults, Layout> =>
  async () => {
    const { config, plan, stored } = from
    const json = unpackedJson(from.json, stored)
    const layout = settleLayout(options.layout, json)
    const wrong = keyFaults(internVL(config), plan)
    const written = configJson({ ...config, dtype: options.dtype ?? config.dtype }, layout, json, true)
    const renamed = planFile(layout, stored, config.textConfig)
    const faults = [...wrong, ...[written, renamed].flatMap((x) => (E.isLeft(x) ? x.left : []))]
    if (E.isLeft(written) || E.isLeft(renamed) || wrong.length > 0) return E.left(inFolder(from.dir, faults))
    const sources = sourcesOf(from, composePlans(stored, renamed.right), options)
    const files = new Map([...(options.files ?? []), ['config.json', configText(written.right)] as const])
    const { shardBytes } = options
    const done = await writeCheckpointTensors(dir, sources, { files, ...(shardBytes ? { shardBytes } : {}) })()
    return E.map(() => layout)(done)
  }
