import { checkpointed } from '../../lib/autograd/checkpointing.js'
import { disposeUnlessTraced } from '../../lib/autograd/tape.js'
import { isTapped, module, repeat } from '../../lib/module.js'
import { attendMerged, attentionWeights, mergeHeads, splitHeads, weightedValues } from '../../lib/nn/attention/attention.js'
import { attentionWeightsChild } from '../../lib/nn/attention/self-attention.js'
import { conv2dPatches } from '../../lib/nn/conv.js'
import { dropout, dropPath } from '../../lib/nn/dropout.js'
import { constant, normal, zeros } from '../../lib/nn/init.js'
import { resizeGrid } from '../../lib/nn/interpolate.js'
import { isReduced, linear, projectTogether } from '../../lib/nn/linear.js'
import { layerNorm, noNorm, rmsNorm } from '../../lib/nn/norm.js'
import { residual } from '../../lib/nn/residual.js'
import { expectShape } from '../../lib/shape.js'
import { tf } from '../../lib/tf.js'
import type { VisionConfig } from '../config/config-types.js'
import { chosenLayers } from '../decoders/chosen-layers.js'

/** Tile features `[T, L, D]`: T tiles, L = 1 class token + patches, D = hiddenSize. */
export type VisionHidden = tf.Tensor3D

const norm = ({ normType, hiddenSize: D, layerNormEps }: VisionConfig) =>
  normType === 'rms_norm' ? rmsNorm(D, layerNormEps) : layerNorm(D, layerNormEps)

/** The query and key norms have their own constant eps. Source: `InternVLVisionRMSNorm` (transformers 5.24). */
const qkNorm = ({ useQkNorm, hiddenSize: D }: VisionConfig) => (useQkNorm ? rmsNorm(D, 1e-6) : noNorm)

/**
 * Patches, class token and positions: `[T, C, H, W] → [T, 1 + patches, D]`; `masked` `[T, patches]` (0 or 1) marks patches
 * that the mask token replaces. Position embeddings are resampled for images of another than the trained size.
 * Source: `InternVLVisionEmbeddings` (transformers 5.24).
 */
export const visionEmbeddings = (c: VisionConfig) => {
  const { hiddenSize: D, imageSize, patchSize, numChannels: C } = c
  const [rows, columns] = [Math.floor(imageSize[0] / patchSize[0]), Math.floor(imageSize[1] / patchSize[1])]
  return module(
    {
      cls_token: zeros<tf.Rank.R3>(1, 1, D),
      ...(c.useMaskToken ? { mask_token: zeros<tf.Rank.R3>(1, 1, D) } : {}),
      ...(c.useAbsolutePositionEmbeddings ? { position_embeddings: normal<tf.Rank.R3>(1, 1 + rows * columns, D) } : {}),
      patch_embeddings: { projection: conv2dPatches(C, D, patchSize) }
    },
    (self) => {
      const positionsFor = (positions: tf.Tensor3D, height: number, width: number): tf.Tensor3D => {
        const grid: [number, number] = [Math.floor(height / patchSize[0]), Math.floor(width / patchSize[1])]
        const trained = positions.shape[1] - 1
        if (grid[0] * grid[1] === trained && height === width) return positions
        const side = Math.floor(Math.sqrt(trained))
        const resized = resizeGrid(positions.slice([0, 1, 0], [1, trained, D]).reshape([trained, D]), [side, side], grid)
        return tf.concat([positions.slice([0, 0, 0], [1, 1, D]), resized.expandDims<tf.Tensor3D>(0)], 1)
      }
      return (pixelValues: tf.Tensor4D, masked?: tf.Tensor2D): VisionHidden => {
        const [T, , height, width] = pixelValues.shape
        let patches = self.patch_embeddings.projection(pixelValues)
        if (masked) {
          if (!self.mask_token) throw new RangeError('masked: this configuration has no mask token (use_mask_token is false)')
          const m = masked.toFloat().expandDims<tf.Tensor3D>(2)
          patches = patches.mul(m.mul(-1).add(1)).add(self.mask_token.mul(m))
        }
        // one for each tile; the gradient of `tf.tile` would be a chain of as many slices and sums
        const tokens = self.cls_token.add<tf.Tensor3D>(tf.zeros([T, 1, patches.shape[2]]))
        const hidden = tf.concat([tokens, patches], 1)
        return self.position_embeddings ? hidden.add(positionsFor(self.position_embeddings, height, width)) : hidden
      }
    }
  )
}

/**
 * Bidirectional multi-head self-attention, `[T, L, D] → [T, L, D]`; `weights` returns the attention weights, `[T, H, L, L]`.
 * Source: `InternVLVisionAttention`.
 */
export const visionAttention = (c: VisionConfig) => {
  const { hiddenSize: D, numAttentionHeads: H, attentionBias: bias } = c
  return module(
    {
      q_proj: linear(D, D, { bias }),
      k_proj: linear(D, D, { bias }),
      v_proj: linear(D, D, { bias }),
      q_norm: qkNorm(c),
      k_norm: qkNorm(c),
      projection_layer: linear(D, D),
      attention_weights: attentionWeightsChild
    },
    (self) => {
      const scale = (D / H) ** -0.5
      const hasWeightsTap = isTapped(self.attention_weights)
      const forward = (x: VisionHidden): VisionHidden => {
        const [query, key, v] = projectTogether([self.q_proj, self.k_proj, self.v_proj], x)
        const [q, k] = [self.q_norm(query), self.k_norm(key)]
        const attended = () => self.projection_layer(attendMerged(q, k, v, H, scale, isReduced(self.q_proj)))
        if (!hasWeightsTap) return attended()
        const computed = attentionWeights(splitHeads(q, H), splitHeads(k, H), scale)
        const weights = self.attention_weights(computed)
        if (weights === computed) return attended()
        return self.projection_layer(mergeHeads(weightedValues(weights, splitHeads(v, H))))
      }
      const weights = (x: VisionHidden): tf.Tensor4D => {
        const [q, k] = [splitHeads(self.q_norm(self.q_proj(x)), H), splitHeads(self.k_norm(self.k_proj(x)), H)]
        return self.attention_weights(attentionWeights(q, k, scale))
      }
      return Object.assign(forward, { weights })
    }
  )
}

/** `fc2(act(fc1(x)))`. */
export const visionMlp = ({ hiddenSize: D, intermediateSize: I, hiddenAct }: VisionConfig) =>
  module(
    { fc1: linear(D, I, { activation: hiddenAct }), fc2: linear(I, D) },
    (self) =>
      (x: VisionHidden): VisionHidden =>
        self.fc2(self.fc1(x))
  )

/** A pre-norm layer with layer scale: `h = x + λ₁ ⊙ attention(norm(x))`, then `h + λ₂ ⊙ mlp(norm(h))`. Source: `InternVLVisionLayer`. */
export const visionLayer = (c: VisionConfig, index = 0) => {
  const share = index / Math.max(1, c.numHiddenLayers - 1)
  return module(
    {
      layernorm_before: norm(c),
      attention: visionAttention(c),
      lambda_1: constant(c.hiddenSize, c.layerScaleInitValue),
      layernorm_after: norm(c),
      mlp: visionMlp(c),
      lambda_2: constant(c.hiddenSize, c.layerScaleInitValue)
    },
    (self) => {
      const forward = (x: VisionHidden): VisionHidden => {
        const h: VisionHidden = residual(x, dropPath(self.attention(self.layernorm_before(x)), share), self.lambda_1)
        return residual(h, dropPath(dropout(self.mlp(self.layernorm_after(h))), share), self.lambda_2)
      }
      const attentions = (x: VisionHidden): tf.Tensor4D => self.attention.weights(self.layernorm_before(x))
      return Object.assign(forward, { attentions })
    }
  )
}

/** Output of the vision tower. */
export interface VisionOutput {
  /** After the last layer and its norm. */
  readonly lastHiddenState: VisionHidden
  /** The embeddings, then the output of every layer. */
  readonly hiddenStates?: readonly VisionHidden[]
  /** Attention weights `[T, H, L, L]` of every layer, or of the chosen ones in their order. */
  readonly attentions?: readonly tf.Tensor4D[]
}

/** Optional outputs of the vision tower; `masked` `[T, patches]` marks patches for the mask token. */
export interface VisionOptions {
  readonly outputHiddenStates?: boolean
  /** Attention weights of all layers (which take much memory), or of the layers with these indices; -1 is the last. */
  readonly outputAttentions?: boolean | number | readonly number[]
  readonly masked?: tf.Tensor2D
}

/** InternViT: `[T, C, H, W] → [T, 1 + patches, D]`. Source: `InternVLVisionModel` (transformers 5.24). */
export const visionTower = (c: VisionConfig) =>
  module(
    {
      embeddings: visionEmbeddings(c),
      encoder: { layer: repeat(c.numHiddenLayers, (index) => checkpointed(visionLayer(c, index))) },
      layernorm: c.useMeanPooling ? noNorm : layerNorm(c.hiddenSize, c.layerNormEps)
    },
    (self) =>
      (pixelValues: tf.Tensor4D, options: VisionOptions = {}): VisionOutput => {
        const { outputHiddenStates = false, outputAttentions = false, masked } = options
        expectShape('pixelValues', pixelValues, [null, c.numChannels, null, null])
        const states = [self.embeddings(pixelValues, masked)]
        const chosen = chosenLayers('outputAttentions', outputAttentions, self.encoder.layer.length)
        const attentions = new Map<number, tf.Tensor4D>()
        for (const [i, layer] of self.encoder.layer.entries()) {
          const before = states.at(-1)!
          if (chosen.includes(i)) attentions.set(i, layer.attentions(before))
          states.push(layer(before))
          if (!outputHiddenStates) disposeUnlessTraced(states.shift()!)
        }
        return {
          lastHiddenState: self.layernorm(states.at(-1)!),
          ...(outputHiddenStates ? { hiddenStates: states } : {}),
          ...(outputAttentions === false ? {} : { attentions: chosen.map((i) => attentions.get(i)!) })
        }
      }
  )

/**
 * Pools the last state to one vector for each tile, `[T, L, D] → [T, D]`: the mean over patches, or the class token if
 * `use_mean_pooling` is false. Source: the documentation of `InternVLVisionConfig.use_mean_pooling`, which Transformers reads
 * but never computes with.
 */
export const poolVision = ({ useMeanPooling }: VisionConfig, lastHiddenState: VisionHidden): tf.Tensor2D => {
  const [T, L, D] = lastHiddenState.shape
  return tf.tidy(() =>
    useMeanPooling
      ? lastHiddenState.slice([0, 1, 0], [T, L - 1, D]).mean<tf.Tensor2D>(1)
      : lastHiddenState.slice([0, 0, 0], [T, 1, D]).reshape<tf.Tensor2D>([T, D])
  )
}
