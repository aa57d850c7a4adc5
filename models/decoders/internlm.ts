import type { KeyTemplates } from '../checkpoint/keys.js'
import { flag } from '../config/config-fields.js'
import type { DecoderFamily } from './decoder-family.js'
import { type LlamaConfig, llama } from './llama.js'

const file = 'language_model.model.layers.*'
const tree = 'model.language_model.layers.*'

/** InternLM2's names of the tensors of a Llama. Source: `convert_internvl_weights_to_hf.py` (transformers 4.57). */
const internLm2Keys: KeyTemplates = {
  rules: [
    { file: 'language_model.model.tok_embeddings.**', tree: 'model.language_model.embed_tokens.**' },
    { file: 'language_model.model.norm.**', tree: 'model.language_model.norm.**' },
    { file: 'language_model.output.**', tree: 'lm_head.**' },
    { file: `${file}.attention_norm.**`, tree: `${tree}.input_layernorm.**` },
    { file: `${file}.ffn_norm.**`, tree: `${tree}.post_attention_layernorm.**` },
    { file: `${file}.attention.wo.**`, tree: `${tree}.self_attn.o_proj.**` },
    { file: `${file}.feed_forward.w1.**`, tree: `${tree}.mlp.gate_proj.**` },
    { file: `${file}.feed_forward.w2.**`, tree: `${tree}.mlp.down_proj.**` },
    { file: `${file}.feed_forward.w3.**`, tree: `${tree}.mlp.up_proj.**` },
    {
      file: `${file}.attention.wqkv.**`,
      tree: ['q_proj', 'k_proj', 'v_proj'].map((name) => `${tree}.self_attn.${name}.**`),
      fused: 'groups'
    }
  ],
  recognizedBy: [
    'language_model.output.**',
    'language_model.model.tok_embeddings.**',
    `${file}.attention.**`,
    `${file}.feed_forward.**`,
    `${file}.attention_norm.**`,
    `${file}.ffn_norm.**`
  ]
}

/** InternLM2 and InternLM2.5: a Llama under other names. Defaults: InternLM's own configuration class. */
export const internLm2: DecoderFamily<LlamaConfig> = {
  ...llama,
  modelType: 'internlm2',
  architecture: 'InternLM2ForCausalLM',
  defaults: { ...llama.defaults, vocabSize: 103168, padTokenId: 0 },
  biases: (f) => {
    const bias = f('bias', flag, true)
    return { attentionBias: bias, outputBias: bias, mlpBias: false }
  },
  biasJson: ({ attentionBias }) => ({ bias: attentionBias }),
  canWrite: ({ attentionBias, outputBias, mlpBias }) => attentionBias === outputBias && !mlpBias,
  originalKeys: internLm2Keys
}

/** InternLM3: a Llama whose output projection may have another bias than q, k and v. Defaults: InternLM's own configuration class. */
export const internLm3: DecoderFamily<LlamaConfig> = {
  ...llama,
  modelType: 'internlm3',
  architecture: 'InternLM3ForCausalLM',
  defaults: {
    ...llama.defaults,
    vocabSize: 128512,
    intermediateSize: 10240,
    numHiddenLayers: 48,
    numKeyValueHeads: 2,
    headDim: 128,
    maxPositionEmbeddings: 32768,
    rmsNormEps: 1e-5,
    padTokenId: 2
  },
  biases: (f) => {
    // InternLM's own names, and the names under which Transformers saves them
    const mlpBias = f('mlp_bias|bias', flag, false)
    return { attentionBias: f('attention_bias|qkv_bias', flag, false), outputBias: mlpBias, mlpBias }
  },
  biasJson: ({ attentionBias, mlpBias }) => ({
    attention_bias: attentionBias,
    qkv_bias: attentionBias,
    mlp_bias: mlpBias,
    bias: mlpBias
  }),
  canWrite: () => true
}
