import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { bytesOf } from '../../lib/dtype.js'
import { getOrThrow, orThrow } from '../../lib/error.js'
import { resizeGrid } from '../../lib/nn/interpolate.js'
import type { TensorSource } from '../../lib/safetensors/shards.js'
import { writeSafetensorsFolder } from '../../lib/safetensors/write.js'
import { sizeOf } from '../../lib/shape.js'
import { tf } from '../../lib/tf.js'
import { openGgufFile } from '../../models/gguf/gguf-file.js'
import { openGgufWeights } from '../../models/gguf/gguf-weights.js'
import { ggufTokenizer } from '../../processors/text/gguf-tokenizer.js'
import { VISUAL_TOKENS } from '../../processors/text/placeholders.js'
import { publishedTemplate } from '../../processors/text/published-templates.js'
import { type OnnxTensor, onnxWeights } from './onnx-weights.js'
import type { RealWeights } from './real-weights.js'

/** Shape of SmolLM2-135M. */
const text = { D: 576, I: 1536, layers: 30, heads: 9, kvHeads: 3, vocabulary: 49152 } as const
/** Shape of DINOv2-small, whose positions were trained for 37 x 37 patches. */
const vision = { D: 384, I: 1536, layers: 12, heads: 6, patch: 14, trained: 37, image: 224 } as const
const grid = vision.image / vision.patch
const added = Object.values(VISUAL_TOKENS)
/** Rows of the embedding table, with those of the visual tokens. */
const rows = text.vocabulary + 8

const config = {
  architectures: ['InternVLForConditionalGeneration'],
  model_type: 'internvl',
  downsample_ratio: 0.5,
  image_seq_length: (grid / 2) ** 2,
  image_token_id: text.vocabulary + added.indexOf(VISUAL_TOKENS.context_image_token),
  projector_hidden_act: 'gelu',
  tie_word_embeddings: true,
  vision_feature_layer: -1,
  vision_feature_select_strategy: 'default',
  text_config: {
    model_type: 'llama',
    hidden_size: text.D,
    intermediate_size: text.I,
    num_hidden_layers: text.layers,
    num_attention_heads: text.heads,
    num_key_value_heads: text.kvHeads,
    head_dim: text.D / text.heads,
    vocab_size: rows,
    max_position_embeddings: 8192,
    rms_norm_eps: 1e-5,
    rope_theta: 100000,
    hidden_act: 'silu',
    tie_word_embeddings: true
  },
  vision_config: {
    model_type: 'internvl_vision',
    hidden_size: vision.D,
    intermediate_size: vision.I,
    num_hidden_layers: vision.layers,
    num_attention_heads: vision.heads,
    image_size: [vision.image, vision.image],
    patch_size: [vision.patch, vision.patch],
    layer_norm_eps: 1e-6,
    hidden_act: 'gelu',
    norm_type: 'layer_norm',
    attention_bias: true,
    use_qk_norm: false,
    use_mean_pooling: false
  }
}

const pixels = {
  size: { height: vision.image, width: vision.image },
  image_mean: [0.485, 0.456, 0.406],
  image_std: [0.229, 0.224, 0.225]
}
const processor = {
  image_seq_length: config.image_seq_length,
  processor_class: 'InternVLProcessor',
  image_processor: { ...pixels, crop_to_patches: true, image_processor_type: 'GotOcr2ImageProcessor' },
  video_processor: { ...pixels, video_processor_type: 'InternVLVideoProcessor' }
}

/** A tensor to write. */
const source = (key: string, { shape, values }: OnnxTensor): TensorSource => ({
  key,
  dtype: 'F32',
  shape,
  bytes: () => bytesOf(values)
})

const transposed = ({ shape: [rows = 0, columns = 0], values }: OnnxTensor): OnnxTensor => ({
  shape: [columns, rows],
  values: Float32Array.from({ length: values.length }, (_, i) => values[(i % rows) * columns + Math.floor(i / rows)]!)
})

/** Parts of a layer by their names in Transformers' DINOv2, with the weights of linear layers as inputs of a product. */
const linears = {
  'attention.attention.query': 'attention.q_proj',
  'attention.attention.key': 'attention.k_proj',
  'attention.attention.value': 'attention.v_proj',
  'attention.output.dense': 'attention.projection_layer',
  'mlp.fc1': 'mlp.fc1',
  'mlp.fc2': 'mlp.fc2'
} as const
const others = {
  'norm1.weight': 'layernorm_before.weight',
  'norm1.bias': 'layernorm_before.bias',
  'norm2.weight': 'layernorm_after.weight',
  'norm2.bias': 'layernorm_after.bias',
  'layer_scale1.lambda1': 'lambda_1',
  'layer_scale2.lambda1': 'lambda_2'
} as const

/** Position embeddings for `grid x grid` patches, with that of the class token before them. */
const positionsOf = (cls: OnnxTensor, patches: OnnxTensor): OnnxTensor => {
  const trained = [vision.trained, vision.trained] as const
  const values = tf.tidy(() =>
    resizeGrid(tf.tensor2d(patches.values, [vision.trained ** 2, vision.D]), trained, [grid, grid]).dataSync()
  )
  return { shape: [1, grid ** 2 + 1, vision.D], values: Float32Array.from([...cls.values, ...values]) }
}

/** The vision tower's weights from the ONNX file. */
const visionTensors = async (path: string): Promise<readonly TensorSource[]> => {
  const weights = await onnxWeights(path)
  const at = (name: string): OnnxTensor => {
    const found = weights.get(name)
    if (!found) throw new RangeError(`${path}: no tensor ${name}`)
    return found
  }
  const tower = 'model.vision_tower'
  // the exporter gave the two position tables numbers for names
  const unnamed = (length: number) => [...weights].find(([name, { shape }]) => name.startsWith('onnx::') && shape[0] === 1 && shape[1] === length && shape[2] === vision.D)![1] // biome-ignore format: one line
  const cls = at('backbone.embeddings.cls_token')
  const embeddings = [
    source(`${tower}.embeddings.cls_token`, cls),
    source(`${tower}.embeddings.position_embeddings`, positionsOf(unnamed(1), unnamed(vision.trained ** 2))),
    ...['weight', 'bias'].flatMap((kind) => [
      source(
        `${tower}.embeddings.patch_embeddings.projection.${kind}`,
        at(`backbone.embeddings.patch_embeddings.projection.${kind}`)
      ),
      source(`${tower}.layernorm.${kind}`, at(`backbone.layernorm.${kind}`))
    ])
  ]
  const layers = Array.from({ length: vision.layers }, (_, i) => {
    const [from, to] = [`backbone.encoder.layer.${i}`, `${tower}.encoder.layer.${i}`]
    return [
      ...Object.entries(linears).flatMap(([name, key]) => [
        source(`${to}.${key}.weight`, transposed(at(`/backbone/encoder/layer.${i}/${name.replaceAll('.', '/')}/MatMul`))),
        source(`${to}.${key}.bias`, at(`${from}.${name}.bias`))
      ]),
      ...Object.entries(others).map(([name, key]) => source(`${to}.${key}`, at(`${from}.${name}`)))
    ]
  })
  return [...embeddings, ...layers.flat()]
}

/** A projector with random weights of a fixed seed: the only weights without training. */
const projectorTensors = (): readonly TensorSource[] => {
  const key = 'model.multi_modal_projector'
  const inputs = vision.D * 4
  const matrix = (out: number, input: number, seed: number): OnnxTensor => ({
    shape: [out, input],
    values: tf.tidy(() => tf.randomNormal([out, input], 0, input ** -0.5, 'float32', seed).dataSync() as Float32Array)
  })
  const vector = (length: number, value: number): OnnxTensor => ({
    shape: [length],
    values: new Float32Array(length).fill(value)
  })
  return [
    source(`${key}.layer_norm.weight`, vector(inputs, 1)),
    source(`${key}.layer_norm.bias`, vector(inputs, 0)),
    source(`${key}.linear_1.weight`, matrix(text.D, inputs, 1)),
    source(`${key}.linear_1.bias`, vector(text.D, 0)),
    source(`${key}.linear_2.weight`, matrix(text.D, text.D, 2)),
    source(`${key}.linear_2.bias`, vector(text.D, 0))
  ]
}

/** The decoder's weights from the GGUF file, dequantized; rows of zeros for the visual tokens. */
const decoderTensors = async (path: string) => {
  const files = await openGgufWeights([path])
  const tensors = [...files.entries.values()].map((entry): TensorSource => {
    const read = () => files.readFloat32(entry)
    if (!entry.key.endsWith('embed_tokens.weight'))
      return { key: entry.key, dtype: 'F32', shape: entry.shape, bytes: async () => bytesOf(await read()) }
    const bytes = async () => {
      const table = new Float32Array(sizeOf([rows, text.D]))
      table.set(await read())
      return bytesOf(table)
    }
    return { key: entry.key, dtype: 'F32', shape: [rows, text.D], bytes }
  })
  return { tensors, close: files.close }
}

/** Tokenizer files with the visual tokens added. */
const tokenizerFiles = async (path: string): Promise<ReadonlyMap<string, string>> => {
  const file = await openGgufFile(path)
  await file.close()
  const { tokenizer, config } = getOrThrow(ggufTokenizer(file.metadata, path))
  const known = tokenizer as { readonly added_tokens: readonly object[] }
  const extra = added.map((content, i) => ({ ...known.added_tokens[0], id: text.vocabulary + i, content, special: true }))
  const [image, video] = [VISUAL_TOKENS.context_image_token, VISUAL_TOKENS.video_token]
  return new Map([
    ['tokenizer.json', JSON.stringify({ ...known, added_tokens: [...known.added_tokens, ...extra] })],
    ['tokenizer_config.json', JSON.stringify({ ...config, extra_special_tokens: VISUAL_TOKENS })],
    ['chat_template.jinja', publishedTemplate(image, video)]
  ])
}

/**
 * A checkpoint folder of a model with learned weights, beside the fetched packages: SmolLM2-135M as decoder, DINOv2-small as vision tower, and
 * a projector that is not trained. Written at the first call, as a whole.
 */
export const realModel = async ({ smollm2, imgFocus }: RealWeights): Promise<string> => {
  const folder = join(dirname(dirname(smollm2)), 'model')
  if (existsSync(join(folder, 'model.safetensors'))) return folder
  const decoder = await decoderTensors(smollm2)
  try {
    const tensors = [...(await visionTensors(imgFocus)), ...projectorTensors(), ...decoder.tensors]
    const files = new Map([
      ['config.json', JSON.stringify(config)],
      ['processor_config.json', JSON.stringify(processor)],
      ...(await tokenizerFiles(smollm2))
    ])
    await orThrow(writeSafetensorsFolder(folder, 'model.safetensors', tensors, files))
  } finally {
    await decoder.close()
  }
  return folder
}
