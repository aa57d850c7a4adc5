import { isTapped, module, type Param } from '../../lib/module.js'
import {
  type ChosenExperts,
  mixtureOfExperts,
  mixtureOnDevice,
  routesOnDevice,
  rowsOnDevice,
  topK
} from '../../lib/nn/experts.js'
import { normal, zeros } from '../../lib/nn/init.js'
import { linear } from '../../lib/nn/linear.js'
import { tf } from '../../lib/tf.js'
import { dequantizeExperts } from '../checkpoint/split-experts.js'
import { flag, number } from '../config/config-fields.js'
import type { DecoderConfig, ExpertsConfig } from '../config/config-types.js'
import {
  attentionWeightsChild,
  decoder,
  decoderLayer,
  type Hidden,
  type MoeOutput,
  selfAttention,
  slidingWindowOf
} from './decoder.js'
import { biasesOfAttention, type DecoderFamily } from './decoder-family.js'
import { expertsConfig, expertsJson } from './experts-config.js'

export interface GptOssConfig extends DecoderConfig, ExpertsConfig {
  readonly modelType: 'gpt_oss'
  readonly swigluAlpha: number
  readonly swigluLimit: number
}

/** Self-attention with attention sinks: a trained score of every head joins its softmax, without a value. Source: `GptOssAttention`. */
const gptOssAttention = (c: GptOssConfig, index: number) => {
  const { hiddenSize: D, numAttentionHeads: H, numKeyValueHeads: G, headDim: K, attentionBias: bias } = c
  const window = slidingWindowOf(c, index)
  return module(
    {
      q_proj: linear(D, H * K, { bias }),
      k_proj: linear(D, G * K, { bias }),
      v_proj: linear(D, G * K, { bias }),
      o_proj: linear(H * K, D, { bias: c.outputBias }),
      sinks: normal<tf.Rank.R1>(H),
      attention_weights: attentionWeightsChild
    },
    (self) => selfAttention({ projections: self, numHeads: H, numKeyValueHeads: G, window, sinks: self.sinks })
  )
}

/** One slice of a tensor along the first axis: `[E, …] → […]`. */
const sliceOf = <T extends tf.Tensor>(stacked: tf.Tensor, index: number): T => {
  const [, ...shape] = stacked.shape
  return stacked.slice([index], [1]).reshape(shape)
}

/** Stacked weights `[E, in, out]`, with LoRA `base + scaling · B A`, B `[E, in, rank]` and A `[E, rank, out]`. */
export type StackedWeight = tf.Tensor3D | StackedLora
interface StackedLora {
  readonly base: tf.Tensor3D
  readonly lora_A: tf.Tensor3D
  readonly lora_B: tf.Tensor3D
  readonly scaling: tf.Scalar
}

/** `x W` with the weight of expert `e`: `[n, in] → [n, out]`. */
const applyExpert = (x: tf.Tensor2D, weight: StackedWeight, e: number): tf.Tensor2D => {
  if (weight instanceof tf.Tensor) return tf.matMul(x, sliceOf<tf.Tensor2D>(weight, e))
  const update = tf.matMul(tf.matMul(x, sliceOf<tf.Tensor2D>(weight.lora_B, e)), sliceOf<tf.Tensor2D>(weight.lora_A, e))
  return applyExpert(x, weight.base, e).add(update.mul(weight.scaling))
}

/** `x[n] W[ids[n]]` with stacked weights and ids `[N, k]`: `[N·k, in] → [N·k, out]`. The chosen weights are copied. */
const applyChosen = (x: tf.Tensor2D, weight: StackedWeight, ids: tf.Tensor2D): tf.Tensor2D => {
  const times = (rows: tf.Tensor3D, stacked: tf.Tensor3D): tf.Tensor3D => tf.matMul(rows, rowsOnDevice(stacked, ids))
  const rows = x.reshape<tf.Tensor3D>([-1, 1, x.shape[1]])
  if (weight instanceof tf.Tensor) return times(rows, weight).squeeze([1])
  const update = times(times(rows, weight.lora_B), weight.lora_A).squeeze<tf.Tensor2D>([1])
  return applyChosen(x, weight.base, ids).add(update.mul(weight.scaling))
}

/** A declaration of stacked weights. */
const stacked = (experts: number, inner: number, out: number): Param<StackedWeight> =>
  normal<tf.Rank.R3>(experts, inner, out) as Param as Param<StackedWeight>

/**
 * `down((up + 1) ⊙ gate · σ(α · gate))`, with gate clamped from above and up clamped on both sides by the limit. The weights of all E
 * experts are stacked, `[E, in, out]`, and columns of gate and up alternate. The forward runs expert `e`: `[n, D] → [n, D]`; `chosen` runs an
 * expert for each row.
 * Source: `GptOssExperts`.
 */
const gptOssExperts = (c: GptOssConfig) => {
  const { hiddenSize: D, intermediateSize: I, numExperts: E, swigluAlpha: alpha, swigluLimit: limit } = c
  return module(
    {
      gate_up_proj: stacked(E, D, 2 * I),
      gate_up_proj_bias: zeros<tf.Rank.R2>(E, 2 * I),
      down_proj: stacked(E, I, D),
      down_proj_bias: zeros<tf.Rank.R2>(E, D)
    },
    (self) => {
      const gatedInner = (both: tf.Tensor2D): tf.Tensor2D => {
        const [gate, up] = tf.unstack(both.reshape([-1, I, 2]), 2) as [tf.Tensor2D, tf.Tensor2D]
        const clamped = gate.minimum<tf.Tensor2D>(limit)
        const glu = clamped.mul(clamped.mul(alpha).sigmoid())
        return up.clipByValue(-limit, limit).add(1).mul(glu)
      }
      const one = (e: number, x: tf.Tensor2D): tf.Tensor2D => {
        const both = applyExpert(x, self.gate_up_proj, e).add<tf.Tensor2D>(sliceOf(self.gate_up_proj_bias, e))
        return applyExpert(gatedInner(both), self.down_proj, e).add(sliceOf(self.down_proj_bias, e))
      }
      const chosen: ChosenExperts = (x, ids) => {
        const both = applyChosen(x, self.gate_up_proj, ids).add<tf.Tensor2D>(rowsOnDevice(self.gate_up_proj_bias, ids))
        return applyChosen(gatedInner(both), self.down_proj, ids).add(rowsOnDevice(self.down_proj_bias, ids))
      }
      return Object.assign(one, { chosen })
    }
  )
}

/** A mixture of experts: every token goes to its k highest-scored experts, weighted by a softmax over their scores. Source: `GptOssMLP`. */
const gptOssMlp = (c: GptOssConfig) => {
  const { hiddenSize: D, numExperts: E, numExpertsPerToken: k } = c
  return module({ router: linear(D, E, { quantizable: false }), experts: gptOssExperts(c) }, (self) => (x: Hidden): MoeOutput => {
    const tokens = x.reshape<tf.Tensor2D>([-1, D])
    const routerLogits = self.router(tokens)
    const output = (mixed: tf.Tensor2D): MoeOutput => ({ hidden: mixed.reshape(x.shape), routerLogits })
    if (!isTapped(self.experts) && routesOnDevice(tokens.shape[0], k, E))
      return output(mixtureOnDevice(tokens, routerLogits, k, (values) => tf.softmax(values), self.experts.chosen))
    const { indices, values } = topK(routerLogits, k)
    return output(mixtureOfExperts(tokens, { experts: indices, weights: tf.softmax(values) }, self.experts))
  })
}

/** GPT-OSS. Source: `GptOssModel` (transformers 5.24). */
const gptOssDecoder = (c: GptOssConfig) => decoder(c, (index) => decoderLayer(c, gptOssAttention(c, index), gptOssMlp(c)))

/** Defaults: `GptOssConfig` (transformers 5.24). */
export const gptOss: DecoderFamily<GptOssConfig> = {
  modelType: 'gpt_oss',
  configType: 'gpt_oss',
  architecture: 'GptOssForCausalLM',
  defaults: {
    vocabSize: 201088,
    hiddenSize: 2880,
    intermediateSize: 2880,
    numHiddenLayers: 36,
    numAttentionHeads: 64,
    numKeyValueHeads: 8,
    headDim: 64,
    maxPositionEmbeddings: 131072,
    rmsNormEps: 1e-5,
    ropeTheta: 150000,
    ropeParameters: {
      rope_type: 'yarn',
      factor: 32,
      beta_fast: 32,
      beta_slow: 1,
      truncate: false,
      original_max_position_embeddings: 4096
    }
  },
  slidingWindow: { layers: 'even', window: 128 },
  biases: (f) => {
    const bias = f('attention_bias', flag, true)
    return { attentionBias: bias, outputBias: bias, mlpBias: true }
  },
  biasJson: biasesOfAttention.biasJson,
  ownConfig: (f, { numHiddenLayers }) => ({
    ...expertsConfig(f, 4, numHiddenLayers),
    swigluAlpha: f('swiglu_alpha', number, 1.702),
    swigluLimit: f('swiglu_limit', number, 7)
  }),
  ownJson: (c) => ({ ...expertsJson(c), swiglu_alpha: c.swigluAlpha, swiglu_limit: c.swigluLimit }),
  build: gptOssDecoder,
  planExperts: dequantizeExperts,
  conversationTemplate: 'internvl3_5_gpt_oss'
}
