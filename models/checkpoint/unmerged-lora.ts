import { dtypeBytes, type FloatDtype, fromFloat32, toFloat32 } from '../../lib/dtype.js'
import type { TensorEntry, TensorFiles } from '../../lib/safetensors/read.js'
import type { Json } from '../config/config-fields.js'
import { addProduct } from './weight-changes.js'

/** Keys of modules that PEFT wrapped: `language_model.base_model.model.model.layers…`. */
const unwrapped = (key: string): string => key.replace('.base_model.model.', '.').replace('.base_layer.', '.')

interface LoraParts {
  readonly base: TensorEntry
  readonly lora_A: TensorEntry
  readonly lora_B: TensorEntry
}

/** Whether a config.json says that the weights have LoRA matrices beside them (`use_llm_lora`, `use_backbone_lora`). */
export const hasUnmergedLora = ({ use_llm_lora, use_backbone_lora }: Json): boolean =>
  [use_llm_lora, use_backbone_lora].some((rank) => typeof rank !== 'object' && Number(rank) > 0)

/** config.json of the merged weights. */
export const withoutLoraFields = ({ use_llm_lora: _l, use_backbone_lora: _b, ...json }: Json): Json => json

const partsOf = (entries: TensorFiles['entries']): ReadonlyMap<string, LoraParts> =>
  new Map(
    [...entries].flatMap(([key, base]) => {
      const module = /^(.*)\.base_layer\.weight$/.exec(key)?.[1]
      const [lora_A, lora_B] = ['A', 'B'].map((name) => entries.get(`${module}.lora_${name}.default.weight`))
      return module && lora_A && lora_B ? [[unwrapped(key), { base, lora_A, lora_B }] as const] : []
    })
  )

/**
 * The files of a folder whose LoRA was not merged, with merged weights: `W + 2 · B A`, for OpenGVLab trains with alpha = 2 · rank.
 * Weights are merged a few rows at a time when they are read, in float32, and keep their stored type.
 * Source: `wrap_llm_lora` of `modeling_internvl_chat.py` (OpenGVLab).
 */
export const mergedFiles = (files: TensorFiles): TensorFiles => {
  const merged = partsOf(files.entries)
  const plain = new Map([...files.entries].filter(([key]) => !/\.lora_[AB]\./.test(key)).map(([key, entry]) => [unwrapped(key), { ...entry, key: unwrapped(key) }])) // biome-ignore format: one line
  const source = new Map([...files.entries.keys()].map((key) => [unwrapped(key), key]))
  const virtual = [...merged].map(([key, { base }]) => [key, { ...base, key, file: `${key}, merged` }] as const)
  const readBytes: TensorFiles['readBytes'] = async (entry, begin = 0, end = entry.bytes, into) => {
    const parts = merged.get(entry.key)
    if (!parts) return files.readBytes(files.entries.get(source.get(entry.key)!)!, begin, end, into)
    const { base, lora_A, lora_B } = parts
    const [columns, rank] = [base.shape[1]!, lora_A.shape[0]!]
    const rowBytes = columns * dtypeBytes[base.dtype]
    const [from, to] = [Math.floor(begin / rowBytes), Math.ceil(end / rowBytes)]
    const numbers = async (one: TensorEntry, first = 0, last = one.bytes) =>
      toFloat32(await files.readBytes(one, first, last), one.dtype)
    const rankBytes = rank * dtypeBytes[lora_B.dtype]
    const [w, a, b] = [
      await numbers(base, from * rowBytes, to * rowBytes),
      await numbers(lora_A),
      await numbers(lora_B, from * rankBytes, to * rankBytes)
    ]
    const rows = fromFloat32(addProduct(w, a, b, [to - from, rank, columns], 2), base.dtype as FloatDtype)
    const bytes = rows.subarray(begin - from * rowBytes, end - from * rowBytes)
    into?.set(bytes)
    return into ? into.subarray(0, bytes.byteLength) : bytes
  }
  return {
    ...files,
    entries: new Map<string, TensorEntry>([...plain, ...virtual]),
    readBytes,
    readFloat32: async (entry) => toFloat32(await readBytes(entry), entry.dtype)
  }
}
