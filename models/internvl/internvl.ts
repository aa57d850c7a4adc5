import { module } from '../../lib/module.js'
import { embedding } from '../../lib/nn/embedding.js'
import { linear } from '../../lib/nn/linear.js'
import { ShapeError } from '../../lib/shape.js'
import { tf } from '../../lib/tf.js'
import type { VisionConfig } from '../config/config-types.js'
import type { FlashConfig, InternVLConfig } from '../config/model-config.js'
import type { DecoderOptions, DecoderOutput, Hidden } from '../decoders/decoder.js'
import { decoderFor } from '../decoders/index.js'
import { flashRouter } from './flash/router.js'
import { type FlashEncoder, packTileFeatures } from './flash/tile-features.js'
import { pixelShuffle, projector } from './projector.js'
import type { VisionOptions, VisionOutput } from './vision.js'
import { visionTowerFor } from './vision-towers.js'

/** At most this many patch tokens go through the vision tower at once: four tiles of 448 pixels. */
const tokensPerChunk = 4 * 1025

/** Ids with image tokens at the positions of image features, and the tiles `[T, C, H, W]` or their precomputed features. */
export interface InternVLInputs {
  readonly inputIds: tf.Tensor2D
  readonly pixelValues?: tf.Tensor4D | undefined
  /** `[T, N, D]`: the projector's output for the images, instead of `pixelValues`. */
  readonly imageFeatures?: tf.Tensor3D | undefined
}

export interface InternVLOptions extends DecoderOptions {
  /** Number of last positions to compute logits for; all by default. */
  readonly logitsToKeep?: number
  /** Positions, as indices into `[B·L]`, to compute logits for, `[1, n, V]`: a loss needs logits of supervised positions only. */
  readonly logitsAt?: readonly number[]
}

export interface InternVLOutput extends Omit<DecoderOutput, 'hidden'> {
  /** `[B, L, V]`, or the logits of the requested positions. */
  readonly logits: tf.Tensor3D
}

/** The forward of InternVL, and its parts. */
export interface InternVL {
  (inputs: InternVLInputs, options?: InternVLOptions): InternVLOutput
  /** Image features of tiles: `[T, C, H, W] → [T, N, D]`, N image tokens for each tile. */
  readonly imageFeatures: (pixelValues: tf.Tensor4D) => tf.Tensor3D
  /** Embeddings `[B, L, D]` of ids, with features at the positions of the image tokens. */
  readonly embed: (inputs: InternVLInputs) => Hidden
  /** Logits of embeddings, by the decoder and the output head. */
  readonly decode: (embeds: Hidden, options?: InternVLOptions) => InternVLOutput
  /** The router of a Flash model. `generate` compresses tiles by it; `imageFeatures` and the forward compress none. */
  readonly flash?: FlashEncoder | undefined
}

/**
 * Replaces the embeddings `[B, L, D]` of image tokens by features `[T, N, D]`, in order.
 * Throws a `ShapeError` with both numbers when they differ. Source: `InternVLModel.get_placeholder_mask`.
 */
export const mergeFeatures = (embeds: Hidden, ids: tf.Tensor2D, features: tf.Tensor3D, imageToken: number): Hidden => {
  const [B, L, D] = embeds.shape
  const [T, N] = features.shape
  let next = B * L // row numbers of features follow those of embeddings in the gathered table
  const rows = Array.from(ids.dataSync(), (id, i) => (id === imageToken ? next++ : i))
  const tokens = next - B * L
  if (tokens !== T * N) throw new ShapeError(`merge: ${tokens} image tokens in inputIds, ${T * N} image features (${T} x ${N})`)
  const table = tf.concat([embeds.reshape([B * L, D]), features.reshape([T * N, D])], 0)
  return tf.gather(table, tf.tensor1d(rows, 'int32')).reshape([B, L, D])
}

/**
 * Replaces the embeddings `[B, L, D]` of special tokens by the rows of a table `[n, D]`, one row for each of `ids`.
 * Source: `replace_img_special_tokens` of `InternVLUChatModel` (OpenGVLab/InternVL-U).
 */
const replaceSpecialTokens = (embeds: Hidden, inputIds: tf.Tensor2D, ids: readonly number[], table: tf.Tensor2D): Hidden => {
  const [B, L, D] = embeds.shape
  const special = new Map(ids.map((id, i) => [id, B * L + i]))
  const rows = Array.from(inputIds.dataSync(), (id, i) => special.get(id) ?? i)
  if (rows.every((row, i) => row === i)) return embeds
  return tf.gather(tf.concat([embeds.reshape([B * L, D]), table], 0), tf.tensor1d(rows, 'int32')).reshape([B, L, D])
}

const featureLayer = ({ visionFeatureLayer: layers }: InternVLConfig): number => {
  const [layer, ...more] = typeof layers === 'number' ? [layers] : layers
  if (layer === undefined || more.length > 0) throw new RangeError(`vision_feature_layer [${layers}]: one layer is supported`)
  return layer
}

/** Runs `compute` on batches of tiles to bound the memory of the vision tower: `[T, C, H, W] → [T, …]`. */
export const inTileBatches = <R extends tf.Tensor>(
  c: VisionConfig,
  tiles: tf.Tensor4D,
  compute: (batch: tf.Tensor4D) => R
): R => {
  const [T, C, H, W] = tiles.shape
  const tokens = 1 + Math.floor(H / c.patchSize[0]) * Math.floor(W / c.patchSize[1])
  const size = Math.max(1, Math.floor(tokensPerChunk / tokens))
  if (T <= size) return compute(tiles)
  const starts = Array.from({ length: Math.ceil(T / size) }, (_, i) => i * size)
  const batch = (start: number) => tiles.slice([start, 0, 0, 0], [Math.min(size, T - start), C, H, W])
  return tf.concat(starts.map((start) => tf.tidy(() => compute(batch(start)))))
}

type Tower = (pixelValues: tf.Tensor4D, options?: VisionOptions) => VisionOutput

/** States of the patches, by a vision tower: `[T, C, H, W] → [T, h, w, D]`. */
const patchStates = (c: InternVLConfig, tower: Tower) => {
  const chosenLayer = (tiles: tf.Tensor4D): tf.Tensor3D => {
    const layer = featureLayer(c)
    if (layer === -1) return tower(tiles).lastHiddenState
    const state = tower(tiles, { outputHiddenStates: true }).hiddenStates!.at(layer)
    if (!state) throw new RangeError(`vision_feature_layer ${layer}: the tower has ${c.visionConfig.numHiddenLayers} layers`)
    return state
  }
  return (tiles: tf.Tensor4D): tf.Tensor4D => {
    const all = chosenLayer(tiles)
    const [T, L, D] = all.shape
    const selected = c.visionFeatureSelectStrategy === 'default' ? all.slice([0, 1, 0], [T, L - 1, D]) : all
    const side = Math.floor(Math.sqrt(selected.shape[1]))
    if (side * side !== selected.shape[1])
      throw new ShapeError(`imageFeatures: ${selected.shape[1]} patch features are no square map`)
    return selected.reshape([T, side, side, D])
  }
}

/** States of patches as one row for each image token: a pixel shuffle by `s`, `[T, h, w, D] → [T, h·w / s², s²·D]`. */
const shuffledRows = (states: tf.Tensor4D, s: number, { psVersion }: InternVLConfig): tf.Tensor3D => {
  const shuffled = pixelShuffle(states, s, psVersion)
  return shuffled.reshape([shuffled.shape[0], -1, shuffled.shape[3]])
}

/** Patches on the side of the square that one image token covers. */
const patchesPerToken = ({ downsampleRatio }: InternVLConfig): number => Math.round(1 / downsampleRatio)

/** Image features of tiles, by a vision tower and a projector: `[T, C, H, W] → [T, N, D]`. Source: `get_image_features`. */
export const imageFeatureExtractor = (c: InternVLConfig, tower: Tower, project: (shuffled: tf.Tensor3D) => tf.Tensor3D) => {
  const statesOf = patchStates(c, tower)
  const features = (tiles: tf.Tensor4D): tf.Tensor3D => project(shuffledRows(statesOf(tiles), patchesPerToken(c), c))
  return (pixelValues: tf.Tensor4D): tf.Tensor3D => inTileBatches(c.visionConfig, pixelValues, features)
}

/** Vision tower, projector, decoder, and the router of a Flash model. Source: `InternVLModel` (transformers 5.24). */
const internVLModel = (c: InternVLConfig) =>
  module(
    {
      vision_tower: visionTowerFor(c.visionConfig),
      multi_modal_projector: projector(c),
      language_model: decoderFor(c.textConfig),
      ...(c.specialTokens ? { special_token_embedding: embedding(c.specialTokens.tokens.length, c.textConfig.hiddenSize) } : {}),
      ...(c.flash ? flashRouter(c) : {})
    },
    (self) => {
      const flashEncoder = ({ mode, ...thresholds }: FlashConfig): FlashEncoder => {
        const statesOf = patchStates(c, self.vision_tower)
        const tileFeatures = (tiles: tf.Tensor4D): tf.Tensor2D => {
          const states = statesOf(tiles)
          const [T, h, w, D] = states.shape
          const rows = (s: number) => shuffledRows(states, s, c)
          const scores = self.gating!(self.pooling_before_gating!(states.reshape([T, h * w, D])))
          const s = patchesPerToken(c)
          return packTileFeatures(self.multi_modal_projector(rows(s)), self.mlp2!(rows(s ** 2)), scores)
        }
        const encode = (tiles: tf.Tensor4D) => inTileBatches(c.visionConfig, tiles, tileFeatures)
        return Object.assign(encode, { mode, ...thresholds, hiddenSize: c.textConfig.hiddenSize })
      }
      const flash = c.flash && flashEncoder(c.flash)
      const imageFeatures = imageFeatureExtractor(c, self.vision_tower, self.multi_modal_projector)
      const embedTokens = (inputIds: tf.Tensor2D): Hidden => {
        const [embeds, special] = [self.language_model.embedTokens(inputIds), self.special_token_embedding]
        if (!special) return embeds
        const { ids, tokens } = c.specialTokens!
        if (!ids) throw new RangeError(`specialTokens: the ids of ${tokens.join(' ')} are unknown; take them from the tokenizer`)
        const rows = special(tf.tensor2d([[...tokens.keys()]], undefined, 'int32'))
        return replaceSpecialTokens(embeds, inputIds, ids, rows.reshape([tokens.length, -1]))
      }
      const embed = ({ inputIds, pixelValues, imageFeatures: precomputed }: InternVLInputs): Hidden => {
        const embeds = embedTokens(inputIds)
        const features = precomputed ?? (pixelValues && imageFeatures(pixelValues))
        if (!features) return embeds
        if (c.imageTokenId === undefined)
          throw new RangeError('imageTokenId: unknown; take it from the tokenizer of the checkpoint')
        return mergeFeatures(embeds, inputIds, features, c.imageTokenId)
      }
      const decode = (embeds: Hidden, options?: DecoderOptions) => self.language_model(embeds, options)
      return Object.assign(decode, {
        imageFeatures,
        embed,
        embedTokens: self.language_model.embedTokens,
        ...(flash ? { flash } : {})
      })
    }
  )

/** The last `count` positions of `[B, L, D]`, all by default. */
const lastPositions = (hidden: Hidden, count = hidden.shape[1]): Hidden => {
  const [B, L, D] = hidden.shape
  const selected = Math.min(L, count)
  return selected === L ? hidden : hidden.slice([0, L - selected, 0], [B, selected, D])
}

/** The states of `[B, L, D]` at positions given as indices into `[B·L]`: `[1, n, D]`. */
const positionsAt = (hidden: Hidden, positions: readonly number[]): Hidden => {
  const D = hidden.shape[2]
  return tf.gather(hidden.reshape([-1, D]), tf.tensor1d([...positions], 'int32')).reshape([1, positions.length, D])
}

/**
 * The whole model with its output head, which is tied to the embeddings if `tieWordEmbeddings` is set.
 * Source: `InternVLForConditionalGeneration` (transformers 5.24).
 *
 * `const { logits } = internVL(config).apply(params)({ inputIds, pixelValues })`
 */
export const internVL = (c: InternVLConfig) => {
  const { hiddenSize: D, vocabSize: V } = c.textConfig
  return module(
    { model: internVLModel(c), ...(c.tieWordEmbeddings ? {} : { lm_head: linear(D, V, { bias: false }) }) },
    (self): InternVL => {
      const { imageFeatures, embed, embedTokens, flash } = self.model
      const head = self.lm_head ?? embedTokens.attend
      const decode = (embeds: Hidden, { logitsToKeep, logitsAt, ...options }: InternVLOptions = {}): InternVLOutput => {
        const { hidden, ...rest } = self.model(embeds, options)
        const states = logitsAt ? positionsAt(hidden, logitsAt) : lastPositions(hidden, logitsToKeep)
        return { logits: head(states), ...rest }
      }
      const forward = (inputs: InternVLInputs, options: InternVLOptions = {}) => decode(embed(inputs), options)
      return Object.assign(forward, { imageFeatures, embed, decode, ...(flash ? { flash } : {}) })
    }
  )
}
