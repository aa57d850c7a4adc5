import type { KeyGroup, KeyRule, Layouts } from '../checkpoint/keys.js'
import type { DecoderFamily } from '../decoders/decoder-family.js'
import { decoders } from '../decoders/index.js'
import type { ModelParts } from '../model-family.js'
import { visionTowers } from './vision-towers.js'

/** Paths of the parts in the module tree of `internVL`. */
export const internVLParts: ModelParts = {
  vision: 'model.vision_tower',
  projector: 'model.multi_modal_projector',
  decoder: 'model.language_model',
  embeddings: 'model.language_model.embed_tokens',
  head: 'lm_head',
  pooling: 'model.pooling_before_gating',
  gating: 'model.gating',
  quarterProjector: 'model.mlp2',
  specialEmbeddings: 'model.special_token_embedding'
}

const { vision, projector, decoder, head, pooling, gating, quarterProjector, specialEmbeddings } = internVLParts
/** Parts that only some models have. */
const further = [pooling, gating, quarterProjector, specialEmbeddings]
const rule = (file: string, tree: string): KeyRule => ({ file, tree })
const treeKeys = [vision, projector, decoder, head, ...further].map((part) => `${part}.**`)

/** The keys of the module tree. */
const treeGroup: KeyGroup = { name: 'hf', rules: treeKeys.map((key) => rule(key, key)), recognizedBy: treeKeys }

/** Vision tower and projector of the first `-hf` files: without the prefix `model.`. */
const unprefixed = (path: string): string => path.replace(/^model\./, '')
const firstGroup: KeyGroup = {
  name: 'hf-first',
  rules: [vision, projector, ...further].map((part) => rule(`${unprefixed(part)}.**`, `${part}.**`)),
  recognizedBy: [vision, projector].map((part) => `${unprefixed(part)}.**`)
}

/** Decoder and head as the first `-hf` files and OpenGVLab's both name them. */
const layer = 'language_model.model.layers.*'
export const decoderGroup: KeyGroup = {
  name: 'decoder',
  rules: [rule('language_model.model.**', `${decoder}.**`), rule('language_model.lm_head.**', `${head}.**`)],
  recognizedBy: [
    'language_model.lm_head.**',
    'language_model.model.embed_tokens.**',
    ...['self_attn', 'mlp', 'input_layernorm', 'post_attention_layernorm'].map((name) => `${layer}.${name}.**`)
  ]
}

/** Vision towers and projector as OpenGVLab names them. */
export const originalGroup: KeyGroup = {
  name: 'original',
  rules: [
    ...visionTowers.flatMap(({ originalKeys }) => originalKeys?.rules ?? []),
    rule('mlp1.0.**', `${projector}.layer_norm.**`),
    rule('mlp1.1.**', `${projector}.linear_1.**`),
    rule('mlp1.3.**', `${projector}.linear_2.**`),
    ...further.map((part) => rule(`${unprefixed(part)}.**`, `${part}.**`))
  ],
  recognizedBy: [...visionTowers.flatMap(({ originalKeys }) => originalKeys?.recognizedBy ?? []), 'mlp1.**']
}

/** Decoders that OpenGVLab's files store under names of their own. */
const renamedDecoders = (decoders as readonly DecoderFamily[]).flatMap(({ modelType, originalKeys }) => {
  const name = `original-${modelType}` as const
  return originalKeys ? [[name, [originalGroup, { ...originalKeys, name }]] as const] : []
})

/** Layouts that Transformers has written. */
export const transformersLayouts: Layouts = { hf: [treeGroup], 'hf-first': [firstGroup, decoderGroup] }

/** Layouts that OpenGVLab has written. */
export const openGvLabLayouts: Layouts = {
  original: [originalGroup, decoderGroup],
  ...Object.fromEntries(renamedDecoders)
}
