/** A matrix or vector of a LoRA update as PEFT names it; embeddings have names of their own. */
export type LoraPart = 'lora_A' | 'lora_B' | 'lora_embedding_A' | 'lora_embedding_B' | 'lora_magnitude_vector'

/** A key of an adapter file: a part of a module's LoRA, or a whole parameter. */
export type AdapterKey =
  | { readonly module: string; readonly part: LoraPart; readonly depth: number }
  | { readonly parameter: string; readonly isBase: boolean }

/** PEFT's prefix before every path. */
const prefix = 'base_model.model.'

/** PEFT's key of a parameter, or of a part of a module's LoRA. */
export const keyOf = (path: string): string => `${prefix}${path}`
export const loraKeyOf = (module: string, part: LoraPart): string =>
  keyOf(part === 'lora_A' || part === 'lora_B' ? `${module}.${part}.weight` : `${module}.${part}`)

const loraPatterns = [
  /^(.+?)((?:\.base_layer)*)\.(lora_[AB])(?:\.default)?\.weight$/,
  /^(.+?)((?:\.base_layer)*)\.(lora_embedding_[AB])(?:\.default)?$/,
  /^(.+?)((?:\.base_layer)*)\.(lora_magnitude_vector)(?:\.default)?(?:\.weight)?$/
]

/** Parses a key; undefined for a key that PEFT does not write. `depth` counts the wrappers around parameters without a module. */
export const parseAdapterKey = (key: string): AdapterKey | undefined => {
  if (!key.startsWith(prefix)) return undefined
  const rest = key.slice(prefix.length)
  const found = loraPatterns.map((pattern) => pattern.exec(rest)).find((match) => match !== null)
  if (found) return { module: found[1]!, part: found[3] as LoraPart, depth: found[2]!.split('.').length - 1 }
  if (/\.lora_/.test(rest)) return undefined
  const parameter = rest.replace(/\.modules_to_save(?:\.default)?(?=\.[^.]+$)/, '').replace(/(?:\.base_layer)+(?=\.[^.]+$)/, '')
  return { parameter, isBase: rest.includes('.base_layer.') }
}
