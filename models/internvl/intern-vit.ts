import { flag } from '../config/config-fields.js'
import { visionTower } from './vision.js'
import type { VisionFamily } from './vision-family.js'

const file = 'vision_model.encoder.layers.*'
const tree = 'model.vision_tower.encoder.layer.*'

/** InternViT. Names: `convert_internvl_weights_to_hf.py` (transformers 4.57). */
export const internVit: VisionFamily = {
  modelType: 'internvl_vision',
  modelTypes: { hf: ['internvl_vision'], original: ['intern_vit_6b'] },
  build: visionTower,
  originalKeys: {
    rules: [
      { file: 'vision_model.embeddings.class_embedding', tree: 'model.vision_tower.embeddings.cls_token' },
      { file: 'vision_model.embeddings.position_embedding', tree: 'model.vision_tower.embeddings.position_embeddings' },
      {
        file: 'vision_model.embeddings.patch_embedding.**',
        tree: 'model.vision_tower.embeddings.patch_embeddings.projection.**'
      },
      { file: `${file}.norm1.**`, tree: `${tree}.layernorm_before.**` },
      { file: `${file}.norm2.**`, tree: `${tree}.layernorm_after.**` },
      { file: `${file}.ls1`, tree: `${tree}.lambda_1` },
      { file: `${file}.ls2`, tree: `${tree}.lambda_2` },
      { file: `${file}.attn.q_norm.**`, tree: `${tree}.attention.q_norm.**` },
      { file: `${file}.attn.k_norm.**`, tree: `${tree}.attention.k_norm.**` },
      { file: `${file}.attn.proj.**`, tree: `${tree}.attention.projection_layer.**` },
      { file: `${file}.mlp.**`, tree: `${tree}.mlp.**` },
      {
        file: `${file}.attn.qkv.**`,
        tree: ['q_proj', 'k_proj', 'v_proj'].map((name) => `${tree}.attention.${name}.**`),
        fused: 'thirds'
      }
    ],
    recognizedBy: ['vision_model.**']
  }
}

/** Qianfan-OCR's name for InternViT: the same tower, with biases of q, k and v unless config.json says otherwise. */
export const qianfanOcrVision: VisionFamily = {
  modelType: 'qianfan_ocr_vision',
  modelTypes: { hf: ['qianfan_ocr_vision'], original: ['intern_vit_6b'] },
  ownConfig: (f, common) => ({ ...common, attentionBias: f('attention_bias|qkv_bias', flag, true) }),
  build: visionTower
}
