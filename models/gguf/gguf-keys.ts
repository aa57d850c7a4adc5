import { nameText } from '../../lib/error.js'
import type { GgufFile, GgufTensor } from './gguf-file.js'

/** A parameter of the module tree as rows of a GGUF tensor. */
export interface GgufParameter {
  readonly key: string
  readonly shape: readonly number[]
  readonly file: GgufFile
  readonly tensor: GgufTensor
  /** First row in the tensor. */
  readonly firstRow: number
  /**
   * Tensors `[E, I, D]` of all experts of a layer that alternate in the last axis of the parameter, `[E, D, n · I]`: GPT-OSS's gate and up,
   * and its transposed down projection. Their biases are `[E, I]`.
   */
  readonly alternating?: readonly GgufTensor[]
  /** Number of heads whose rows are interleaved for rotary embeddings; 0 for rows in order. */
  readonly interleavedHeads: number
}

const layer = 'model.language_model.layers'
const visionLayer = 'model.vision_tower.encoder.layer'

const decoderNames: Readonly<Record<string, string>> = {
  attn_norm: 'input_layernorm',
  ffn_norm: 'post_attention_layernorm',
  attn_q: 'self_attn.q_proj',
  attn_k: 'self_attn.k_proj',
  attn_v: 'self_attn.v_proj',
  attn_output: 'self_attn.o_proj',
  attn_q_norm: 'self_attn.q_norm',
  attn_k_norm: 'self_attn.k_norm',
  ffn_gate: 'mlp.gate_proj',
  ffn_up: 'mlp.up_proj',
  ffn_down: 'mlp.down_proj'
}

/** Names that an architecture has beside the common ones, or instead of them. */
const namesOf: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  phi3: { attn_qkv: 'self_attn.qkv_proj', ffn_up: 'mlp.gate_up_proj' },
  qwen3moe: { ffn_gate_inp: 'mlp.gate' },
  'gpt-oss': { post_attention_norm: 'post_attention_layernorm', ffn_gate_inp: 'mlp.router' }
}

const visionNames: Readonly<Record<string, string>> = {
  ln1: 'layernorm_before',
  ln2: 'layernorm_after',
  attn_q: 'attention.q_proj',
  attn_k: 'attention.k_proj',
  attn_v: 'attention.v_proj',
  attn_out: 'attention.projection_layer',
  attn_q_norm: 'attention.q_norm',
  attn_k_norm: 'attention.k_norm',
  ffn_up: 'mlp.fc1',
  ffn_down: 'mlp.fc2'
}

const wholeNames: Readonly<Record<string, string>> = {
  'token_embd.weight': 'model.language_model.embed_tokens.weight',
  'output_norm.weight': 'model.language_model.norm.weight',
  'output.weight': 'lm_head.weight',
  'v.class_embd': 'model.vision_tower.embeddings.cls_token',
  'v.position_embd.weight': 'model.vision_tower.embeddings.position_embeddings',
  'v.patch_embd.weight': 'model.vision_tower.embeddings.patch_embeddings.projection.weight',
  'v.patch_embd.bias': 'model.vision_tower.embeddings.patch_embeddings.projection.bias',
  ...Object.fromEntries(
    ['0 layer_norm', '1 linear_1', '3 linear_2'].flatMap((pair) => {
      const [i, name] = pair.split(' ')
      return ['weight', 'bias'].map((kind) => [`mm.model.mlp.${i}.${kind}`, `model.multi_modal_projector.${name}.${kind}`])
    })
  )
}

/** Tensors that hold computed values. */
const isComputed = (name: string): boolean => /^rope_(freqs|factors)/.test(name)

/** The key of a tensor; unknown names stay, for the comparison with the declared tree to report. */
const keyOf = (name: string, architecture = ''): string => {
  const whole = wholeNames[name]
  if (whole) return whole
  const [, vision, index, part, kind] = /^(v\.)?blk\.(\d+)\.(\w+)\.(weight|bias)$/.exec(name) ?? []
  if (!part) return name
  if (part === 'attn_sinks') return `${layer}.${index}.self_attn.sinks`
  const inDecoder = namesOf[architecture]?.[part] ?? decoderNames[part]
  if (!vision) return inDecoder ? `${layer}.${index}.${inDecoder}.${kind}` : name
  const scale = /^ls([12])$/.exec(part)?.[1]
  if (scale) return `${visionLayer}.${index}.lambda_${scale}`
  return visionNames[part] ? `${visionLayer}.${index}.${visionNames[part]}.${kind}` : name
}

/** Shapes of the module tree that a file stores without axes of length one. */
const shapeOf = (key: string, shape: readonly number[]): readonly number[] => {
  if (key.endsWith('.cls_token')) return [1, 1, shape.at(-1)!]
  return key.endsWith('.position_embeddings') ? [1, ...shape.slice(-2)] : shape
}

/** The architecture of a decoder. */
export const architectureOf = ({ metadata }: GgufFile): string => nameText(metadata.get('general.architecture'))

type Experts = readonly [name: string, index: string, part: string, kind: string]

/** The parameters of Qwen3-MoE's experts, which are separate in the module tree. */
const separateExperts = (file: GgufFile, tensor: GgufTensor, [, index, part]: Experts): readonly GgufParameter[] => {
  const [experts, rows, columns] = tensor.shape as readonly [number, number, number]
  return Array.from({ length: experts }, (_, e) => {
    const key = `${layer}.${index}.mlp.experts.${e}.${part}_proj.weight`
    return { key, shape: [rows, columns], file, tensor, firstRow: e * rows, interleavedHeads: 0 }
  })
}

/** The parameter of GPT-OSS's experts, gate and up together. Source: `GptOssModel` of llama.cpp's `convert_hf_to_gguf.py`. */
const stackedExperts = (file: GgufFile, tensor: GgufTensor, [, index, part, kind]: Experts): readonly GgufParameter[] => {
  const up = file.tensors.get(tensor.name.replace('ffn_gate_', 'ffn_up_'))
  if (part === 'up') return []
  const alternating = part === 'gate' && up ? [tensor, up] : [tensor]
  const name = `${layer}.${index}.mlp.experts.${part === 'gate' ? 'gate_up' : part}_proj${kind === 'bias' ? '_bias' : ''}`
  const [experts, rows, columns] = tensor.shape as readonly [number, number, number | undefined]
  const width = rows * alternating.length
  const shape = columns === undefined ? [experts, width] : [experts, columns, width]
  return [{ key: name, shape, file, tensor, firstRow: 0, interleavedHeads: 0, alternating }]
}

/** Heads whose query and key rows a converter interleaved, as llama.cpp's Llama has them. Source: `LlamaModel.permute`. */
const interleavedHeadsOf = (file: GgufFile, name: string): number => {
  const { metadata } = file
  const architecture = architectureOf(file)
  if (architecture !== 'llama' && architecture !== 'internlm2') return 0
  const kind = /^blk\.\d+\.attn_([qk])\./.exec(name)?.[1]
  const heads = Number(metadata.get(`${architecture}.attention.head_count`))
  if (!kind) return 0
  return kind === 'q' ? heads : Number(metadata.get(`${architecture}.attention.head_count_kv`) ?? heads)
}

/** The parameters that the tensors of a GGUF file hold; a fused `attn_qkv` of the vision tower is split. */
export const parametersOf = (file: GgufFile): readonly GgufParameter[] =>
  [...file.tensors.values()].flatMap((tensor): readonly GgufParameter[] => {
    const { name, shape } = tensor
    if (isComputed(name)) return []
    if (/^v\.blk\.\d+\.attn_qkv\./.test(name)) {
      const rows = shape[0]! / 3
      return ['q', 'k', 'v'].map((part, i) => {
        const key = keyOf(name.replace('attn_qkv', `attn_${part}`))
        return { key, shape: [rows, ...shape.slice(1)], file, tensor, firstRow: i * rows, interleavedHeads: 0 }
      })
    }
    const experts = /^blk\.(\d+)\.ffn_(gate|up|down)_exps\.(weight|bias)$/.exec(name) as Experts | null
    if (experts) return (architectureOf(file) === 'gpt-oss' ? stackedExperts : separateExperts)(file, tensor, experts)
    const key = keyOf(name, architectureOf(file))
    return [{ key, shape: shapeOf(key, shape), file, tensor, firstRow: 0, interleavedHeads: interleavedHeadsOf(file, name) }]
  })
