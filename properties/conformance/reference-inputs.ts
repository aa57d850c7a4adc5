import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { tf } from '../../lib/tf.js'
import type { DecoderConfig, InternVLConfig } from '../../models/config/parse-config.js'
import { type Case, type Numbers, readJson, readNumbers } from './case.js'
import { type RopeLengths, ropeLengths } from './replay-rope.js'

interface Generated {
  readonly options: Readonly<Record<string, unknown>>
  readonly tokens: readonly (readonly number[])[]
  readonly text: readonly string[]
}

/** One input of a case, as stored in its JSON file. */
export interface CaseInput {
  readonly messages: ReadonlyArray<
    ReadonlyArray<{ readonly role: string; readonly content: string | ReadonlyArray<Record<string, unknown>> }>
  >
  readonly processor: Readonly<Record<string, unknown>>
  readonly video_frame_size: readonly [number, number] | null
  readonly prompts: readonly string[]
  readonly generate: Readonly<Record<string, Generated>>
  readonly loss: number
  readonly gradient_norms: Readonly<Record<string, number>>
}

/** One input of a case: its JSON file, and the tensors that Transformers computed. */
export interface StoredInput {
  readonly label: string
  readonly input: CaseInput
  readonly stored: ReadonlyMap<string, Numbers>
  readonly rope: RopeLengths | undefined
}

export const tensor = ({ shape, values }: Numbers, dtype: 'float32' | 'int32' = 'float32'): tf.Tensor =>
  tf.tensor(dtype === 'int32' ? Int32Array.from(values) : values, [...shape], dtype)

/** The model's inputs as tensors. */
export const storedInputs = (stored: StoredInput['stored']) => {
  const pixels = stored.get('pixel_values')
  return {
    inputIds: tensor(stored.get('input_ids')!, 'int32') as tf.Tensor2D,
    attentionMask: tensor(stored.get('attention_mask')!, 'int32') as tf.Tensor2D,
    ...(pixels ? { pixelValues: tensor(pixels) as tf.Tensor4D } : {})
  }
}

/**
 * The configuration with rotary frequencies rounded as in the reference. The cases of 16-bit weights were computed by a model cast
 * with `.to(dtype)`, rotary frequencies included (`make_reference.py`); `from_pretrained` does not round them.
 */
export const asReferenced = (config: InternVLConfig): InternVLConfig => {
  const roundedTo = config.dtype === 'bfloat16' ? 'BF16' : config.dtype === 'float16' ? 'F16' : undefined
  return { ...config, textConfig: { ...config.textConfig, rope: { ...config.textConfig.rope, roundedTo } } }
}

const replayed = ({ label, input, stored }: Omit<StoredInput, 'rope'>) => ({
  label,
  length: stored.get('input_ids')!.shape[1]!,
  generated: Object.fromEntries(Object.entries(input.generate).map(([kind, { tokens }]) => [kind, tokens[0]!.length]))
})

/** All inputs of a case's folder. */
export const readInputs = async (dir: string, config: DecoderConfig): Promise<readonly StoredInput[]> => {
  const labels = readdirSync(dir)
    .filter((file) => file.endsWith('.safetensors'))
    .map((file) => file.slice(0, -'.safetensors'.length))
  const read = labels.map(async (label) => ({
    label,
    input: readJson(join(dir, `${label}.json`)) as CaseInput,
    stored: await readNumbers(join(dir, `${label}.safetensors`))
  }))
  const all = await Promise.all(read)
  const lengths = ropeLengths(config, all.map(replayed))
  return all.map((one) => ({ ...one, rope: lengths.get(one.label) }))
}

/** The checkpoint folders of a case, by their names. */
export const layoutsOf = ({ dir }: Case): readonly string[] =>
  ['checkpoint', 'checkpoint-original'].filter((layout) => existsSync(join(dir, layout)))
