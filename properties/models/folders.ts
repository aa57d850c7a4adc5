import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { getOrThrow, orThrow } from '../../lib/error.js'
import { initParams, mapParams, namedParameters } from '../../lib/params.js'
import { openCheckpointTensors } from '../../lib/safetensors/read.js'
import { type TensorSource, writeCheckpointTensors } from '../../lib/safetensors/write.js'
import { tf } from '../../lib/tf.js'
import type { InternVLParams } from '../../models/checkpoint/load-model.js'
import type { Json } from '../../models/config/config-fields.js'
import { type InternVLConfig, parseConfig } from '../../models/config/parse-config.js'
import { internVL } from '../../models/internvl/internvl.js'

/** Runs `test` with an empty folder, which is removed afterwards. */
export const inFolder = async <A>(test: (folder: string) => Promise<A>): Promise<A> => {
  const folder = await mkdtemp(join(tmpdir(), 'internvl-'))
  try {
    return await test(folder)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** A small model of any decoder, with weights that are exact in float16. */
export const smallModel = (json: Json): { readonly config: InternVLConfig; readonly params: InternVLParams } => {
  const config = getOrThrow(parseConfig(json))
  const fresh = initParams(internVL(config))
  const params = mapParams((leaf, path) => {
    const of = [...path].reduce((n, c) => (n * 31 + c.charCodeAt(0)) % 1009, 7)
    return tf.tidy(() => tf.range(0, leaf.size).mul(of).add(of).mod(251).sub(125).div(64).reshape(leaf.shape))
  })(fresh)
  for (const [, leaf] of namedParameters(fresh)) leaf.dispose()
  return { config, params: params as InternVLParams }
}

/** Fields of a small decoder of any type; the sizes of experts are possible in MXFP4. */
const decoderJson = (model_type: string): Json => ({
  model_type,
  vocab_size: 41,
  hidden_size: 32,
  intermediate_size: 32,
  moe_intermediate_size: 6,
  num_local_experts: 2,
  num_experts: 2,
  num_experts_per_tok: 1,
  num_hidden_layers: 1,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 8,
  max_position_embeddings: 64,
  tie_word_embeddings: false
})

export const modelJson = (model_type: string): Json => ({
  model_type: 'internvl',
  dtype: 'float32',
  image_token_id: 1,
  image_seq_length: 4,
  tie_word_embeddings: false,
  vision_config: {
    hidden_size: 8,
    intermediate_size: 6,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    attention_bias: true,
    image_size: [8, 8],
    patch_size: [2, 2]
  },
  text_config: decoderJson(model_type)
})

/** The same with embeddings and a vision MLP that are large enough to be quantized in the requested format. */
export const quantizableJson = (model_type: string): Json => {
  const { vision_config, text_config, ...json } = modelJson(model_type) as Record<string, Json>
  return {
    ...json,
    vision_config: { ...vision_config, intermediate_size: 4096 },
    text_config: { ...text_config, vocab_size: 2048 }
  }
}

/** The tensors stored in a folder, by key: type, shape and bytes. */
export const stored = async (folder: string) => {
  const files = await orThrow(openCheckpointTensors(folder))
  try {
    const entries = [...files.entries.values()].sort((a, b) => (a.key < b.key ? -1 : 1))
    return await Promise.all(
      entries.map(async (entry) => {
        const { key, dtype, shape } = entry
        return { key, dtype, shape, bytes: Buffer.from(await files.readBytes(entry)).toString('base64') }
      })
    )
  } finally {
    await files.close()
  }
}

/** Writes tensors and config.json to a folder, unchanged. */
export const writeFolder = async (folder: string, json: Json, tensors: readonly TensorSource[]): Promise<void> => {
  await orThrow(writeCheckpointTensors(folder, tensors))
  await writeFile(join(folder, 'config.json'), JSON.stringify(json))
}

export const readJson = async (folder: string, name = 'config.json'): Promise<Record<string, unknown>> =>
  JSON.parse(await readFile(join(folder, name), 'utf8'))
