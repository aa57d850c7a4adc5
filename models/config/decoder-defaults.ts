import { type Fields, flag, type Json } from './config-fields.js'
import type { TextConfig } from './config-types.js'

/** A decoder family as a configuration names it: what it is, and the defaults of its configuration class. */
export interface Family {
  readonly modelType: TextConfig['modelType']
  /** The class that `architectures` names. */
  readonly architecture: string
  readonly vocabSize: number
  /** `[hidden, intermediate, layers, heads, key-value heads, head]`; null: as many as heads; null: hidden / heads. */
  readonly sizes: readonly [number, number, number, number, number | null, number | null]
  readonly maxPositions: number
  readonly eps: number
  readonly ropeTheta: number
  readonly rope?: Json
  readonly originalMaxPositions?: number
  readonly ids: readonly [bos: number | null, eos: number | null, pad: number | null]
  /** `[q k v, o, feed-forward]`. */
  readonly biases: (f: Fields) => readonly [boolean, boolean, boolean]
  readonly slides: SlidingRule
}

/** The default window, whether `use_sliding_window` must allow it, and which layers slide. */
interface SlidingRule {
  readonly window: number | null
  readonly mustBeUsed: boolean
  readonly layers: 'none' | 'all' | 'even' | 'upper'
}

const attentionBias = (f: Fields, fallback: boolean) => f('attention_bias', flag, fallback)
const noIds = [null, null, null] as const
const yarn32 = {
  rope_type: 'yarn',
  factor: 32,
  beta_fast: 32,
  beta_slow: 1,
  truncate: false,
  original_max_position_embeddings: 4096
}

const qwen2: Family = {
  modelType: 'qwen2',
  architecture: 'Qwen2ForCausalLM',
  vocabSize: 151936,
  sizes: [4096, 22016, 32, 32, 32, null],
  maxPositions: 32768,
  eps: 1e-6,
  ropeTheta: 10000,
  ids: noIds,
  biases: () => [true, false, false],
  slides: { window: 4096, mustBeUsed: true, layers: 'upper' }
}
const qwen3: Family = {
  ...qwen2,
  modelType: 'qwen3',
  architecture: 'Qwen3ForCausalLM',
  sizes: [4096, 22016, 32, 32, 32, 128],
  biases: (f) => [attentionBias(f, false), attentionBias(f, false), false]
}
const llama: Family = {
  ...qwen2,
  modelType: 'llama',
  architecture: 'LlamaForCausalLM',
  vocabSize: 32000,
  sizes: [4096, 11008, 32, 32, null, null],
  maxPositions: 2048,
  ids: [1, 2, null],
  biases: (f) => [attentionBias(f, false), attentionBias(f, false), f('mlp_bias', flag, false)],
  slides: { window: null, mustBeUsed: false, layers: 'none' }
}

/** `model_type` of a text configuration. Defaults: the configuration classes of transformers 5.23, and of InternLM's own code. */
export const families = {
  qwen2,
  qwen3,
  qwen3_moe: {
    ...qwen3,
    modelType: 'qwen3_moe',
    architecture: 'Qwen3MoeForCausalLM',
    sizes: [2048, 6144, 24, 32, 4, null],
    slides: { ...qwen2.slides, layers: 'all' }
  },
  llama,
  phi3: {
    ...llama,
    modelType: 'phi3',
    architecture: 'Phi3ForCausalLM',
    vocabSize: 32064,
    sizes: [3072, 8192, 32, 32, null, null],
    maxPositions: 4096,
    eps: 1e-5,
    originalMaxPositions: 4096,
    ids: [1, 32000, 32000],
    biases: () => [false, false, false],
    slides: { window: null, mustBeUsed: false, layers: 'all' }
  },
  gpt_oss: {
    ...qwen3,
    modelType: 'gpt_oss',
    architecture: 'GptOssForCausalLM',
    vocabSize: 201088,
    sizes: [2880, 2880, 36, 64, 8, 64],
    maxPositions: 131072,
    eps: 1e-5,
    ropeTheta: 150000,
    rope: yarn32,
    biases: (f) => [attentionBias(f, true), attentionBias(f, true), true],
    slides: { window: 128, mustBeUsed: false, layers: 'even' }
  },
  internlm2: {
    ...llama,
    architecture: 'InternLM2ForCausalLM',
    vocabSize: 103168,
    ids: [1, 2, 0],
    biases: (f) => [f('bias', flag, true), f('bias', flag, true), false]
  },
  internlm3: {
    ...llama,
    architecture: 'InternLM3ForCausalLM',
    vocabSize: 128512,
    sizes: [4096, 10240, 48, 32, 2, 128],
    maxPositions: 32768,
    eps: 1e-5,
    ids: [1, 2, 2],
    biases: (f) => {
      // InternLM's own names, and those under which Transformers saves them
      const [attention, rest] = [f('attention_bias|qkv_bias', flag, false), f('mlp_bias|bias', flag, false)]
      return [attention, rest, rest]
    }
  }
} as const satisfies Readonly<Record<string, Family>>
