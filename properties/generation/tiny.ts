import type { GenerateInputs } from '../../generation/decoding/generate.js'
import { getOrThrow } from '../../lib/error.js'
import { buildParams } from '../../lib/params.js'
import { tf } from '../../lib/tf.js'
import { parseConfig } from '../../models/config/parse-config.js'
import { type InternVL, internVL } from '../../models/internvl/internvl.js'

/** The image token of the tiny model; each tile has 4 of them. */
export const imageToken = 1
export const vocabulary = 40

const config = {
  model_type: 'internvl',
  image_token_id: imageToken,
  image_seq_length: 4,
  vision_config: {
    hidden_size: 8,
    intermediate_size: 8,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    image_size: [8, 8],
    patch_size: [2, 2]
  },
  text_config: {
    model_type: 'qwen2',
    vocab_size: vocabulary,
    hidden_size: 16,
    intermediate_size: 24,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    max_position_embeddings: 256
  }
}

/** A random model, with weights large enough that every token influences the next; `text` changes its decoder's fields. */
export const tinyModel = (text: Readonly<Record<string, unknown>> = {}): InternVL => {
  const module = internVL(getOrThrow(parseConfig({ ...config, text_config: { ...config.text_config, ...text } })))
  let seed = 0
  const params = buildParams(module, (path, { shape }) =>
    path.endsWith('norm.weight') ? tf.ones([...shape]) : tf.randomNormal([...shape], 0, 0.4, 'float32', ++seed)
  )
  return module.apply(params as Parameters<typeof module.apply>[0])
}

/** A prompt: ids without padding, in which each image is four image tokens. */
export type Prompt = readonly number[]

/** Prompts as one batch, padded on the left, with random images seeded by the first token and the index of the image. */
export const makeInputs = (prompts: readonly Prompt[], extraPadding = 0): GenerateInputs => {
  const L = Math.max(...prompts.map((ids) => ids.length)) + extraPadding
  const rows = prompts.map((ids) => [...Array<number>(L - ids.length).fill(0), ...ids])
  const mask = prompts.map((ids) => Array.from({ length: L }, (_, i) => (i < L - ids.length ? 0 : 1)))
  const images = prompts.flatMap((ids) => {
    const tiles = ids.filter((id) => id === imageToken).length / 4
    return Array.from({ length: tiles }, (_, i) => tf.randomNormal([3, 8, 8], 0, 1, 'float32', 10 * ids[0]! + i))
  })
  const pixelValues = images.length > 0 ? (tf.stack(images) as tf.Tensor4D) : undefined
  tf.dispose(images)
  return {
    inputIds: tf.tensor2d(rows, [rows.length, L], 'int32'),
    attentionMask: tf.tensor2d(mask, [rows.length, L], 'int32'),
    pixelValues
  }
}

export const disposeInputs = ({ inputIds, attentionMask, pixelValues }: GenerateInputs): void =>
  tf.dispose([inputIds, ...(attentionMask ? [attentionMask] : []), ...(pixelValues ? [pixelValues] : [])])

/** A model that counts tokens through the decoder (all rows together) and tiles through the vision tower. */
export const countingModel = (model: InternVL) => {
  const counts = { tokens: 0, tiles: 0 }
  const embed: InternVL['embed'] = (inputs) => {
    counts.tokens += inputs.inputIds.size
    if (inputs.pixelValues) counts.tiles += inputs.pixelValues.shape[0]
    return model.embed(inputs)
  }
  const imageFeatures: InternVL['imageFeatures'] = (pixelValues) => {
    counts.tiles += pixelValues.shape[0]
    return model.imageFeatures(pixelValues)
  }
  return {
    counts,
    model: Object.assign((...a: Parameters<InternVL>) => model(...a), model, { embed, imageFeatures }) as InternVL
  }
}
