import type { KeyRule } from '../checkpoint/keys.js'
import { activation, count, type Fields, flag, number, positive, sides, toPair } from '../config/config-fields.js'
import type { VisionConfig } from '../config/config-types.js'
import { hfVisionDefaults, originalVisionDefaults, visionConfig } from '../config/vision-config.js'
import { internVit } from '../internvl/intern-vit.js'

/** A published form of a vision transformer that InternViT's module can hold: class token, absolute positions, pre-norm layers. */
export interface TowerFormat {
  /** `model_type` in the tower's config.json. */
  readonly modelType: string
  /** The configuration as that of InternViT. */
  readonly config: (f: Fields) => VisionConfig
  /** Names of the tensors; a wrapper's prefix, such as `dinov2.` of a classifier, is removed first. */
  readonly rules: readonly KeyRule[]
  readonly prefix?: string
  /** Tensors that the tower does not need: heads, poolers, mask tokens. */
  readonly ignored: RegExp
  /** Value of the layer scales of a tower without them. */
  readonly layerScale?: number
}

const tree = 'model.vision_tower'
const layer = `${tree}.encoder.layer.*`
const under = (names: readonly string[]): readonly KeyRule[] =>
  names.map((name) => ({ file: `${name}.**`, tree: `${tree}.${name}.**` }))

/** Fields that Transformers' ViT and DINOv2 share. `hidden` is the inner size of the MLP. */
const transformersVit = (f: Fields, intermediateSize: number): VisionConfig => {
  const hiddenSize = f('hidden_size', count, 768)
  const heads = f('num_attention_heads', count, 12)
  if (hiddenSize % heads !== 0) f.note('hidden_size', `a multiple of num_attention_heads, ${heads}`)
  return {
    modelType: internVit.modelType,
    hiddenSize,
    intermediateSize,
    numHiddenLayers: f('num_hidden_layers', count, 12),
    numAttentionHeads: heads,
    attentionBias: f('qkv_bias', flag, true),
    useQkNorm: false,
    hiddenAct: f('hidden_act', activation, 'gelu'),
    hiddenDropoutProb: f('hidden_dropout_prob', number, 0),
    attentionDropout: f('attention_probs_dropout_prob', number, 0),
    projectionDropout: f('hidden_dropout_prob', number, 0),
    initializerRange: f('initializer_range', number, 0.02),
    normType: 'layer_norm',
    layerNormEps: f('layer_norm_eps', positive, 1e-6),
    imageSize: toPair(f('image_size', sides, 224)),
    patchSize: toPair(f('patch_size', sides, 16)),
    numChannels: f('num_channels', count, 3),
    useMaskToken: false,
    useAbsolutePositionEmbeddings: true,
    layerScaleInitValue: f('layerscale_value', number, 1),
    useMeanPooling: false // the tower ends with a norm
  }
}

/** Rules of a layer's tensors, by their names in the file. */
const inLayer = (names: Readonly<Record<string, string>>): readonly KeyRule[] =>
  Object.entries(names).map(([file, name]) => ({ file: `encoder.layer.*.${file}`, tree: `${layer}.${name}` }))

/** Attention in Transformers' ViT and DINOv2. */
const attentionRules = inLayer({
  'attention.attention.query.**': 'attention.q_proj.**',
  'attention.attention.key.**': 'attention.k_proj.**',
  'attention.attention.value.**': 'attention.v_proj.**',
  'attention.output.dense.**': 'attention.projection_layer.**'
})

/** InternViT alone, as Transformers saves it. */
const internVitHf: TowerFormat = {
  modelType: 'internvl_vision',
  config: (f) => visionConfig(f, hfVisionDefaults),
  rules: under(['embeddings', 'encoder', 'layernorm']),
  ignored: /(?!)/
}

/** InternViT alone, as OpenGVLab publishes it (InternViT-300M-448px and others). */
const internVitOriginal: TowerFormat = {
  modelType: 'intern_vit_6b',
  config: (f) => visionConfig(f, originalVisionDefaults),
  rules: internVit.originalKeys!.rules.map((rule) => ({ ...rule, file: rule.file.replace(/^vision_model\./, '') })),
  ignored: /(?!)/
}

/** DINOv2. Source: `Dinov2Model` (transformers 5.24). */
const dinov2: TowerFormat = {
  modelType: 'dinov2',
  config: (f) => {
    if (f('use_swiglu_ffn', flag, false)) f.note('use_swiglu_ffn', 'false: InternViT has no SwiGLU')
    const intermediateSize = Math.floor(f('hidden_size', count, 768) * f('mlp_ratio', positive, 4))
    return { ...transformersVit(f, intermediateSize), patchSize: toPair(f('patch_size', sides, 14)) }
  },
  rules: [
    ...under(['embeddings', 'layernorm']),
    ...attentionRules,
    ...inLayer({
      'norm1.**': 'layernorm_before.**',
      'norm2.**': 'layernorm_after.**',
      'mlp.**': 'mlp.**',
      'layer_scale1.lambda1': 'lambda_1',
      'layer_scale2.lambda1': 'lambda_2'
    })
  ],
  prefix: 'dinov2.',
  ignored: /^(embeddings\.mask_token|classifier\..*)$/
}

/** ViT without layer scales. Source: `ViTModel` (transformers 5.24). */
const vit: TowerFormat = {
  modelType: 'vit',
  config: (f) => ({
    ...transformersVit(f, f('intermediate_size', count, 3072)),
    layerNormEps: f('layer_norm_eps', positive, 1e-12)
  }),
  rules: [
    ...under(['embeddings', 'layernorm']),
    ...attentionRules,
    ...inLayer({
      'layernorm_before.**': 'layernorm_before.**',
      'layernorm_after.**': 'layernorm_after.**',
      'intermediate.dense.**': 'mlp.fc1.**',
      'output.dense.**': 'mlp.fc2.**'
    })
  ],
  prefix: 'vit.',
  ignored: /^(pooler\..*|classifier\..*|embeddings\.mask_token)$/,
  layerScale: 1
}

/** The forms of vision towers alone. */
export const towerFormats: readonly TowerFormat[] = [internVitHf, internVitOriginal, dinov2, vit]
