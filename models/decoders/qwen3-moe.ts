import { type Module, module, repeat } from '../../lib/module.js'
import { mixture, topK } from '../../lib/nn/experts.js'
import { linear } from '../../lib/nn/linear.js'
import type { RmsNorm } from '../../lib/nn/norm.js'
import { tf } from '../../lib/tf.js'
import type { Qwen3MoeConfig } from '../config/parse-config.js'
import { decoder, decoderLayer, type FeedForward, type Hidden, type Routed } from './decoder.js'
import { gatedMlp } from './qwen2.js'
import { qwen3Attention } from './qwen3.js'

/**
 * A gated feed-forward of E experts, of which each token goes to k, weighted by their probabilities among all (with
 * `norm_topk_prob` among the k). Experts are separate tensors, as checkpoints store them. Source: `Qwen3MoeSparseMoeBlock`.
 */
export const qwen3Experts = (c: Qwen3MoeConfig) => {
  const { hiddenSize: D, numExperts: E, numExpertsPerToken: k } = c
  return module(
    { gate: linear(D, E, { bias: false, packable: false }), experts: repeat(E, () => gatedMlp(c, c.moeIntermediateSize)) },
    (self) =>
      (x: Hidden, norm: RmsNorm): Routed => {
        const tokens = norm(x).reshape<tf.Tensor2D>([-1, D])
        const routerLogits = self.gate(tokens)
        const { indices, values } = topK(tf.softmax(routerLogits), k)
        const weights: tf.Tensor2D = c.normTopkProb ? values.div(values.sum(1, true)) : values
        const mixed = mixture(tokens, { experts: indices, weights }, (e, rows) => self.experts[e]!(rows))
        return { hidden: x.add(mixed.reshape(x.shape)), routerLogits }
      }
  )
}

/** Of two kinds of layer, what they have in common. */
const erased = <P>(layer: Module<P, FeedForward>) => layer as Module<unknown, FeedForward>

/** Which layers are experts: every `decoderSparseStep`-th, but for `mlpOnlyLayers`. */
const isSparse = (c: Qwen3MoeConfig, index: number): boolean =>
  !c.mlpOnlyLayers.includes(index) && (index + 1) % c.decoderSparseStep === 0

/** Qwen3 with mixtures of experts. Source: `Qwen3MoeModel` (transformers 5.23). */
export const qwen3MoeDecoder = (c: Qwen3MoeConfig) =>
  decoder(c, (index) => {
    const mlp: Module<unknown, FeedForward> = isSparse(c, index) ? erased(qwen3Experts(c)) : erased(gatedMlp(c))
    return decoderLayer(c, qwen3Attention(c, index), mlp)
  })
