import { module } from '../../lib/module.js'
import { linear } from '../../lib/nn/linear.js'
import { ShapeError } from '../../lib/shape.js'
import { tf } from '../../lib/tf.js'
import type { InternVLConfig, VisionConfig } from '../config/parse-config.js'
import type { DecoderOptions, DecoderOutput, Hidden } from '../decoders/decoder.js'
import { decoderFor } from '../decoders/index.js'
import { pixelShuffle, projector } from './projector.js'
import { type VisionOptions, type VisionOutput, visionTower } from './vision.js'

/** At most this many patch tokens go through the vision tower at once: four tiles of 448 pixels. */
const tokensPerChunk = 4 * 1025

/** Ids with `<IMG_CONTEXT>` where picture features go, and the pictures' tiles `[T, C, H, W]` or their features, ready. */
export interface InternVLInputs {
  readonly inputIds: tf.Tensor2D
  readonly pixelValues?: tf.Tensor4D | undefined
  /** `[T, N, D]`, instead of `pixelValues`: the projector's output for these pictures. */
  readonly imageFeatures?: tf.Tensor3D | undefined
}

export interface InternVLOptions extends DecoderOptions {
  /** Logits of the last so many positions only; all by default. */
  readonly logitsToKeep?: number
  /** Logits of these places of `[B·L]` only, as `[1, n, V]`: a loss needs them where a label is learned. */
  readonly logitsAt?: readonly number[]
}

export interface InternVLOutput extends Omit<DecoderOutput, 'hidden'> {
  /** `[B, L, V]`, or of the positions that were asked for. */
  readonly logits: tf.Tensor3D
}

/** InternVL: `forward`, and its parts. */
export interface InternVL {
  (inputs: InternVLInputs, options?: InternVLOptions): InternVLOutput
  /** Tiles to what the decoder reads: `[T, C, H, W] → [T, N, D]`, N image tokens a tile. */
  readonly imageFeatures: (pixelValues: tf.Tensor4D) => tf.Tensor3D
  /** Ids to embeddings `[B, L, D]`, with the features in the places of the image tokens. */
  readonly embed: (inputs: InternVLInputs) => Hidden
  /** Embeddings to logits, by the decoder and the head. */
  readonly decode: (embeds: Hidden, options?: InternVLOptions) => InternVLOutput
}

/**
 * Puts features `[T, N, D]` in the places of the image tokens of embeddings `[B, L, D]`, in order.
 * Throws a `ShapeError` with both numbers when they differ. Source: `InternVLModel.get_placeholder_mask`.
 */
export const mergeFeatures = (embeds: Hidden, ids: tf.Tensor2D, features: tf.Tensor3D, imageToken: number): Hidden => {
  const [B, L, D] = embeds.shape
  const [T, N] = features.shape
  let next = B * L // features stand behind the embeddings in the table that is gathered from
  const rows = Array.from(ids.dataSync(), (id, i) => (id === imageToken ? next++ : i))
  const tokens = next - B * L
  if (tokens !== T * N) throw new ShapeError(`merge: ${tokens} image tokens in inputIds, ${T * N} image features (${T} x ${N})`)
  const table = tf.concat([embeds.reshape([B * L, D]), features.reshape([T * N, D])], 0)
  return tf.gather(table, tf.tensor1d(rows, 'int32')).reshape([B, L, D])
}

const featureLayer = ({ visionFeatureLayer: layers }: InternVLConfig): number => {
  const [layer, ...more] = typeof layers === 'number' ? [layers] : layers
  if (layer === undefined || more.length > 0) throw new RangeError(`vision_feature_layer [${layers}]: one layer is supported`)
  return layer
}

/** Tiles a few at a time, so that what the tower needs for them is bounded: `[T, C, H, W] → [T, …]` as `compute` gives it. */
export const inChunks = <R extends tf.Tensor>(c: VisionConfig, tiles: tf.Tensor4D, compute: (few: tf.Tensor4D) => R): R => {
  const [T, C, H, W] = tiles.shape
  const tokens = 1 + Math.floor(H / c.patchSize[0]) * Math.floor(W / c.patchSize[1])
  const size = Math.max(1, Math.floor(tokensPerChunk / tokens))
  if (T <= size) return compute(tiles)
  const starts = Array.from({ length: Math.ceil(T / size) }, (_, i) => i * size)
  const few = (start: number) => tiles.slice([start, 0, 0, 0], [Math.min(size, T - start), C, H, W])
  return tf.concat(starts.map((start) => tf.tidy(() => compute(few(start)))))
}

/** What the decoder reads of tiles, by a tower and a projector: `[T, C, H, W] → [T, N, D]`. Source: `get_image_features`. */
export const featuresOf = (
  c: InternVLConfig,
  tower: (pixelValues: tf.Tensor4D, options?: VisionOptions) => VisionOutput,
  project: (map: tf.Tensor3D) => tf.Tensor3D
) => {
  const chosenLayer = (tiles: tf.Tensor4D): tf.Tensor3D => {
    const layer = featureLayer(c)
    if (layer === -1) return tower(tiles).lastHiddenState
    const state = tower(tiles, { outputHiddenStates: true }).hiddenStates!.at(layer)
    if (!state) throw new RangeError(`vision_feature_layer ${layer}: the tower has ${c.visionConfig.numHiddenLayers} layers`)
    return state
  }
  const features = (tiles: tf.Tensor4D): tf.Tensor3D => {
    const all = chosenLayer(tiles)
    const [T, L, D] = all.shape
    const kept = c.visionFeatureSelectStrategy === 'default' ? all.slice([0, 1, 0], [T, L - 1, D]) : all
    const side = Math.floor(Math.sqrt(kept.shape[1]))
    if (side * side !== kept.shape[1]) throw new ShapeError(`imageFeatures: ${kept.shape[1]} patch features are no square map`)
    const map = pixelShuffle(kept.reshape([T, side, side, D]), Math.round(1 / c.downsampleRatio), c.psVersion)
    return project(map.reshape([T, -1, map.shape[3]]))
  }
  return (pixelValues: tf.Tensor4D): tf.Tensor3D => inChunks(c.visionConfig, pixelValues, features)
}

/** Vision tower, projector and decoder. Source: `InternVLModel` (transformers 5.23). */
const internVLModel = (c: InternVLConfig) =>
  module(
    { vision_tower: visionTower(c.visionConfig), multi_modal_projector: projector(c), language_model: decoderFor(c.textConfig) },
    (self) => {
      const imageFeatures = featuresOf(c, self.vision_tower, self.multi_modal_projector)
      const embed = ({ inputIds, pixelValues, imageFeatures: ready }: InternVLInputs): Hidden => {
        const embeds = self.language_model.embedTokens(inputIds)
        const features = ready ?? (pixelValues && imageFeatures(pixelValues))
        if (!features) return embeds
        if (c.imageTokenId === undefined)
          throw new RangeError('imageTokenId: unknown; take it from the tokenizer of the checkpoint')
        return mergeFeatures(embeds, inputIds, features, c.imageTokenId)
      }
      const decode = (embeds: Hidden, options?: DecoderOptions) => self.language_model(embeds, options)
      return Object.assign(decode, { imageFeatures, embed, embedTokens: self.language_model.embedTokens })
    }
  )

/** The last positions of `[B, L, D]`, all by default. */
const lastOf = (hidden: Hidden, count = hidden.shape[1]): Hidden => {
  const [B, L, D] = hidden.shape
  const kept = Math.min(L, count)
  return kept === L ? hidden : hidden.slice([0, L - kept, 0], [B, kept, D])
}

/** Places of `[B·L]` of `[B, L, D]`: `[1, n, D]`. */
const rowsAt = (hidden: Hidden, places: readonly number[]): Hidden => {
  const D = hidden.shape[2]
  return tf.gather(hidden.reshape([-1, D]), tf.tensor1d([...places], 'int32')).reshape([1, places.length, D])
}

/**
 * The whole model with its head, tied to the embeddings where the configuration says so.
 * Source: `InternVLForConditionalGeneration` (transformers 5.23).
 *
 * `const { logits } = internVL(config).apply(params)({ inputIds, pixelValues })`
 */
export const internVL = (c: InternVLConfig) => {
  const { hiddenSize: D, vocabSize: V } = c.textConfig
  return module(
    { model: internVLModel(c), ...(c.tieWordEmbeddings ? {} : { lm_head: linear(D, V, { bias: false }) }) },
    (self): InternVL => {
      const { imageFeatures, embed, embedTokens } = self.model
      const head = self.lm_head ?? embedTokens.attend
      const decode = (embeds: Hidden, { logitsToKeep, logitsAt, ...options }: InternVLOptions = {}): InternVLOutput => {
        const { hidden, ...rest } = self.model(embeds, options)
        const seen = logitsAt ? rowsAt(hidden, logitsAt) : lastOf(hidden, logitsToKeep)
        return { logits: head(seen), ...rest }
      }
      const forward = (inputs: InternVLInputs, options: InternVLOptions = {}) => decode(embed(inputs), options)
      return Object.assign(forward, { imageFeatures, embed, decode })
    }
  )
}
