import { type Module, module, repeat } from '../../lib/module.js'
import { mixtureOfExperts, mixtureOnDevice, routesOnDevice, topK } from '../../lib/nn/experts.js'
import { stackedGatedMlps } from '../../lib/nn/fusion/stacked-experts.js'
import { linear } from '../../lib/nn/linear.js'
import { tf } from '../../lib/tf.js'
import { unstackExperts } from '../checkpoint/split-experts.js'
import { count, flag, index, listOf } from '../config/config-fields.js'
import type { DecoderConfig, ExpertsConfig } from '../config/config-types.js'
import { decoder, decoderLayer, type FeedForward, type Hidden, type MoeOutput } from './decoder.js'
import { biasesOfAttention, type DecoderFamily } from './decoder-family.js'
import { expertsConfig, expertsJson } from './experts-config.js'
import { gatedMlp } from './qwen2.js'
import { qwen3Attention } from './qwen3.js'

export interface Qwen3MoeConfig extends DecoderConfig, ExpertsConfig {
  readonly modelType: 'qwen3_moe'
  readonly moeIntermediateSize: number
  readonly normTopkProb: boolean
  /** Every `decoderSparseStep`-th layer is a mixture of experts, except the layers of `mlpOnlyLayers`. */
  readonly decoderSparseStep: number
  readonly mlpOnlyLayers: readonly number[]
}

/**
 * A mixture of E gated MLPs: every token goes to its k most probable experts, weighted by their probabilities (`norm_topk_prob`
 * normalizes the weights to sum to 1). Experts are separate tensors, as in the checkpoint. Source: `Qwen3MoeSparseMoeBlock`.
 */
const qwen3Experts = (c: Qwen3MoeConfig) => {
  const { hiddenSize: D, numExperts: E, numExpertsPerToken: k } = c
  return module(
    { gate: linear(D, E, { bias: false, quantizable: false }), experts: repeat(E, () => gatedMlp(c, c.moeIntermediateSize)) },
    (self) => {
      const stacked = stackedGatedMlps(self.experts)
      const weightsOf = (values: tf.Tensor2D): tf.Tensor2D => (c.normTopkProb ? values.div(values.sum(1, true)) : values)
      return (x: Hidden): MoeOutput => {
        const tokens = x.reshape<tf.Tensor2D>([-1, D])
        const routerLogits = self.gate(tokens)
        const scores = tf.softmax(routerLogits)
        const output = (mixed: tf.Tensor2D): MoeOutput => ({ hidden: mixed.reshape(x.shape), routerLogits })
        if (stacked && routesOnDevice(tokens.shape[0], k, E))
          return output(mixtureOnDevice(tokens, scores, k, weightsOf, stacked))
        const { indices, values } = topK(scores, k)
        const routing = { experts: indices, weights: weightsOf(values) }
        return output(mixtureOfExperts(tokens, routing, (e, rows) => self.experts[e]!(rows)))
      }
    }
  )
}

/** The feed-forward without the type of its parameters: layers of one decoder may differ in it. */
const erased = <P>(layer: Module<P, FeedForward>) => layer as Module<unknown, FeedForward>

/** Whether a layer is a mixture of experts: every `decoderSparseStep`-th layer, except `mlpOnlyLayers`. */
const isSparse = (c: Qwen3MoeConfig, index: number): boolean =>
  !c.mlpOnlyLayers.includes(index) && (index + 1) % c.decoderSparseStep === 0

/** Qwen3 with mixtures of experts (MoE). Source: `Qwen3MoeModel` (transformers 5.24). */
const qwen3MoeDecoder = (c: Qwen3MoeConfig) =>
  decoder(c, (index) => {
    const mlp: Module<unknown, FeedForward> = isSparse(c, index) ? erased(qwen3Experts(c)) : erased(gatedMlp(c))
    return decoderLayer(c, qwen3Attention(c, index), mlp)
  })

/** Defaults: `Qwen3MoeConfig` (transformers 5.24). */
export const qwen3Moe: DecoderFamily<Qwen3MoeConfig> = {
  modelType: 'qwen3_moe',
  configType: 'qwen3_moe',
  architecture: 'Qwen3MoeForCausalLM',
  defaults: {
    vocabSize: 151936,
    hiddenSize: 2048,
    intermediateSize: 6144,
    numHiddenLayers: 24,
    numAttentionHeads: 32,
    numKeyValueHeads: 4,
    maxPositionEmbeddings: 32768,
    rmsNormEps: 1e-6,
    ropeTheta: 10000
  },
  slidingWindow: { layers: 'all', window: 4096, isOptional: true },
  ...biasesOfAttention,
  ownConfig: (f, { numHiddenLayers }) => ({
    ...expertsConfig(f, 8, numHiddenLayers),
    moeIntermediateSize: f('moe_intermediate_size', count, 768),
    normTopkProb: f('norm_topk_prob', flag, false),
    decoderSparseStep: f('decoder_sparse_step', count, 1),
    mlpOnlyLayers: f.maybe('mlp_only_layers', listOf(index)) ?? []
  }),
  ownJson: (c) => ({
    ...expertsJson(c),
    num_experts: c.numExperts, // its name before transformers 5
    moe_intermediate_size: c.moeIntermediateSize,
    norm_topk_prob: c.normTopkProb,
    decoder_sparse_step: c.decoderSparseStep,
    mlp_only_layers: c.mlpOnlyLayers
  }),
  build: qwen3MoeDecoder,
  planExperts: unstackExperts
}
