import { dtypeBytes, type FloatDtype, fromFloat32, toFloat32 } from '../../../lib/dtype.js'
import { InternVLError, issue, nameText } from '../../../lib/error.js'
import type { TensorEntry, TensorFiles } from '../../../lib/safetensors/read.js'
import type { Json } from '../../config/config-fields.js'
import { bitsAndBytes4, isState, stateShape } from './bits-and-bytes-4.js'
import type { ForeignFormat, Parts, Rows, StoredTensor } from './foreign-format.js'
import { awq, gptq, packQuantized } from './packed-int.js'
import { bitsAndBytes8, scaledBytes } from './scaled.js'

/** The formats of each method that `quantization_config` names. */
const formatsOf: Readonly<Record<string, readonly ForeignFormat[]>> = {
  awq: [awq],
  gptq: [gptq],
  bitsandbytes: [bitsAndBytes4, bitsAndBytes8],
  fp8: [scaledBytes],
  fbgemm_fp8: [scaledBytes],
  'compressed-tensors': [packQuantized, scaledBytes]
}

/** Methods of other software whose weights are read. */
export const readMethods = Object.keys(formatsOf)

/** A weight that is stored in several tensors, as one tensor. */
interface ForeignWeight {
  readonly entry: TensorEntry
  readonly parts: Parts<TensorEntry>
  readonly format: ForeignFormat
  readonly shape: readonly [out: number, features: number]
}

/** Tensors of each module by the rest of their key. */
const byModule = (entries: TensorFiles['entries'], { main, owns }: ForeignFormat) => {
  const modules = [...entries.keys()].flatMap((key) => (key.endsWith(`.${main}`) ? [key.slice(0, -main.length - 1)] : []))
  const parts = new Map(modules.map((module) => [module, {} as Record<string, TensorEntry>]))
  for (const [key, entry] of entries)
    for (let dot = key.lastIndexOf('.'); dot > 0; dot = key.lastIndexOf('.', dot - 1)) {
      const of = parts.get(key.slice(0, dot))
      if (of && owns(key.slice(dot + 1))) of[key.slice(dot + 1)] = entry
    }
  return parts
}

const foreignWeights = async (files: TensorFiles, config: Json): Promise<ReadonlyMap<string, ForeignWeight>> => {
  const found = new Map<string, ForeignWeight>()
  for (const format of formatsOf[nameText(config.quant_method)] ?? [])
    for (const [module, parts] of byModule(files.entries, format)) {
      const key = `${module}.weight`
      const state = Object.entries(parts).find(([part]) => isState(part))?.[1]
      const described = state ? stateShape(await files.readBytes(state)) : format.describe(parts, config)
      if (!described || found.has(key)) continue
      const { shape, dtype } = described
      const bytes = shape[0] * shape[1] * dtypeBytes[dtype]
      found.set(key, { entry: { key, dtype, shape, file: `${key}, dequantized`, offset: 0, bytes }, parts, format, shape })
    }
  return found
}

/** Bytes of every part of a weight. */
const readParts = async (files: TensorFiles, parts: Parts<TensorEntry>): Promise<Parts<StoredTensor>> =>
  Object.fromEntries(
    await Promise.all(
      Object.entries(parts).map(async ([part, entry]) => {
        const { dtype, shape } = entry
        return [part, { dtype, shape, bytes: await files.readBytes(entry) }] as const
      })
    )
  )

/**
 * The files with each quantized weight of other software as one float tensor, dequantized a few rows at a time when it is read:
 * AWQ, GPTQ, bitsandbytes, FP8 and compressed-tensors. `config` is the `quantization_config` of config.json. Throws an `InternVLError`
 * for parts that are damaged.
 */
export const dequantizedFiles = async (files: TensorFiles, config: Json): Promise<TensorFiles> => {
  const weights = await foreignWeights(files, config)
  const replaced = new Set([...weights.values()].flatMap(({ parts }) => Object.values(parts).map(({ key }) => key)))
  const others = [...files.entries].filter(([key]) => !replaced.has(key))
  let last: { readonly key: string; readonly rows: Rows } | undefined // a weight is read in pieces one after another
  const rowsOf = async ({ entry, parts, format, shape }: ForeignWeight): Promise<Rows> => {
    if (last?.key === entry.key) return last.rows
    try {
      last = { key: entry.key, rows: format.rows(await readParts(files, parts), config, shape) }
      return last.rows
    } catch (error) {
      if (error instanceof InternVLError) throw error
      throw new InternVLError([
        issue('QuantizedElsewhere', `${entry.key}: its quantized form cannot be read (${(error as Error).message})`)
      ])
    }
  }
  const readBytes: TensorFiles['readBytes'] = async (entry, begin = 0, end = entry.bytes, into) => {
    const weight = weights.get(entry.key)
    if (!weight) return files.readBytes(entry, begin, end, into)
    const rowBytes = weight.shape[1] * dtypeBytes[entry.dtype]
    const [from, to] = [Math.floor(begin / rowBytes), Math.ceil(end / rowBytes)]
    const rows = fromFloat32((await rowsOf(weight))(from, to), entry.dtype as FloatDtype)
    const bytes = rows.subarray(begin - from * rowBytes, end - from * rowBytes)
    into?.set(bytes)
    return into ? into.subarray(0, bytes.byteLength) : bytes
  }
  return {
    ...files,
    entries: new Map([...others, ...[...weights].map(([key, { entry }]) => [key, entry] as const)]),
    readBytes,
    readFloat32: async (entry) => toFloat32(await readBytes(entry), entry.dtype)
  }
}
