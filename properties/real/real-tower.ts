import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { bytesOf } from '../../lib/dtype.js'
import { orThrow } from '../../lib/error.js'
import type { TensorSource } from '../../lib/safetensors/shards.js'
import { writeSafetensorsFolder } from '../../lib/safetensors/write.js'
import { type OnnxTensor, onnxWeights } from './onnx-weights.js'
import type { RealWeights } from './real-weights.js'

/** Shape of DINOv2-small, whose positions were trained for 37 x 37 patches. */
const vision = { D: 384, layers: 12, heads: 6, patch: 14, trained: 37 } as const

/** config.json as Facebook publishes it with DINOv2-small. */
const config = {
  architectures: ['Dinov2Model'],
  model_type: 'dinov2',
  hidden_size: vision.D,
  num_hidden_layers: vision.layers,
  num_attention_heads: vision.heads,
  mlp_ratio: 4,
  image_size: vision.trained * vision.patch,
  patch_size: vision.patch,
  layer_norm_eps: 1e-6,
  hidden_act: 'gelu',
  qkv_bias: true
}
const preprocessor = {
  image_mean: [0.485, 0.456, 0.406],
  image_std: [0.229, 0.224, 0.225],
  image_processor_type: 'BitImageProcessor'
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

/** Linear layers, whose weights are inputs of products in ONNX, transposed; and the other parts of a layer. */
const linears = ['attention.attention.query', 'attention.attention.key', 'attention.attention.value', 'attention.output.dense', 'mlp.fc1', 'mlp.fc2'] // biome-ignore format: one line
const others = ['norm1.weight', 'norm1.bias', 'norm2.weight', 'norm2.bias', 'layer_scale1.lambda1', 'layer_scale2.lambda1']

/** The tower's tensors under the names of Transformers' DINOv2, from an ONNX file with DINOv2 as its backbone. */
const towerTensors = async (path: string): Promise<readonly TensorSource[]> => {
  const weights = await onnxWeights(path)
  const at = (name: string): OnnxTensor => {
    const found = weights.get(name)
    if (!found) throw new RangeError(`${path}: no tensor ${name}`)
    return found
  }
  // the exporter gave the two position tables numbers for names
  const unnamed = (length: number) => [...weights].find(([name, { shape }]) => name.startsWith('onnx::') && shape[0] === 1 && shape[1] === length && shape[2] === vision.D)![1] // biome-ignore format: one line
  const positions = [...unnamed(1).values, ...unnamed(vision.trained ** 2).values]
  const plain = ['embeddings.cls_token', ...['embeddings.patch_embeddings.projection', 'layernorm'].flatMap((name) => [`${name}.weight`, `${name}.bias`])] // biome-ignore format: one line
  const layers = Array.from({ length: vision.layers }, (_, i) => {
    const name = `encoder.layer.${i}`
    return [
      ...linears.flatMap((part) => [
        source(`${name}.${part}.weight`, transposed(at(`/backbone/encoder/layer.${i}/${part.replaceAll('.', '/')}/MatMul`))),
        source(`${name}.${part}.bias`, at(`backbone.${name}.${part}.bias`))
      ]),
      ...others.map((part) => source(`${name}.${part}`, at(`backbone.${name}.${part}`)))
    ]
  })
  return [
    ...plain.map((name) => source(name, at(`backbone.${name}`))),
    source('embeddings.position_embeddings', {
      shape: [1, 1 + vision.trained ** 2, vision.D],
      values: Float32Array.from(positions)
    }),
    ...layers.flat()
  ]
}

/** The folder of the learned vision tower as DINOv2 is published, beside the fetched packages. Written at the first call, as a whole. */
export const realTower = async ({ imgFocus }: RealWeights): Promise<string> => {
  const folder = join(dirname(dirname(dirname(imgFocus))), 'dinov2')
  if (existsSync(join(folder, 'model.safetensors'))) return folder
  const files = new Map([
    ['config.json', JSON.stringify(config)],
    ['preprocessor_config.json', JSON.stringify(preprocessor)]
  ])
  await orThrow(writeSafetensorsFolder(folder, 'model.safetensors', await towerTensors(imgFocus), files))
  return folder
}
