import { sizeOf } from '../../lib/shape.js'
import type { InspectedModel, InspectedNode } from '../../models/checkpoint/inspect-model.js'
import { partOfPath } from '../../models/families.js'

/** The parameters of an inspected model by path. */
export const leavesOf = ({ children, ...node }: InspectedNode): readonly Omit<InspectedNode, 'children'>[] =>
  children.length > 0 ? children.flatMap(leavesOf) : [node]

/** Share of a decoder's experts that each token uses; 1 without experts. */
const expertShare = (config: InspectedModel['config']): number => {
  const { numExperts, numLocalExperts, numExpertsPerTok } = config.textConfig as unknown as Readonly<
    Record<string, number | undefined>
  >
  const experts = numExperts ?? numLocalExperts
  return experts && numExpertsPerTok ? numExpertsPerTok / experts : 1
}

/** Parameters of each part that a token or patch passes through. */
export const activeParameters = ({ tree, config }: InspectedModel): Readonly<Record<string, number>> => {
  const [counts, share] = [{} as Record<string, number>, expertShare(config)]
  for (const { path, shape = [] } of leavesOf(tree)) {
    const part = partOfPath(path) ?? 'other'
    counts[part] = (counts[part] ?? 0) + sizeOf(shape) * (path.includes('.experts.') ? share : 1)
  }
  return counts
}

/** Patches of a tile, with the class token. */
const patchesOf = ({ config: { visionConfig } }: InspectedModel): number =>
  (visionConfig.imageSize[0] / visionConfig.patchSize[0]) * (visionConfig.imageSize[1] / visionConfig.patchSize[1]) + 1

/** Floating-point operations of the vision tower and projector for one tile: two for each parameter and row, and the attention. */
export const tileFlops = (model: InspectedModel): number => {
  const { vision = 0, projector = 0 } = activeParameters(model)
  const { hiddenSize: D, numHiddenLayers: layers } = model.config.visionConfig
  const N = patchesOf(model)
  return 2 * vision * N + 4 * layers * N * N * D + 2 * projector * model.config.imageSeqLength
}

/** Floating-point operations of the decoder for a prompt of L tokens, whose head predicts one token. */
export const promptFlops = (model: InspectedModel, L: number): number => {
  const { decoder = 0, head = 0, embeddings = 0 } = activeParameters(model)
  const { numHiddenLayers: layers, numAttentionHeads: H, headDim: K } = model.config.textConfig
  return 2 * decoder * L + 2 * layers * L * L * H * K + 2 * (head || embeddings)
}

/** Bytes of the KV cache for one token: float32 values, or bfloat16 ones where weights are quantized, which is the default of `generate`. */
export const cacheBytes = ({ config: { textConfig } }: InspectedModel, precision: string): number => {
  const { numHiddenLayers: layers, numKeyValueHeads: G, headDim: K } = textConfig
  return 2 * layers * G * K * (/float32|bfloat16/.test(precision) ? 4 : 2)
}

/** Bytes of one row of a decoder layer's activations: hidden states, queries, keys, values, and the two halves of the MLP. */
const rowBytes = ({ config: { textConfig } }: InspectedModel): number => {
  const { hiddenSize: D, intermediateSize: I, numAttentionHeads: H, numKeyValueHeads: G, headDim: K } = textConfig
  return 4 * (4 * D + (2 * H + 2 * G) * K + 3 * I)
}

/** Bytes of the largest activations of a request: pixels, one tile in a vision layer, image features, and a prompt in a decoder layer. */
export const activationBytes = (model: InspectedModel, tiles: number, tokens: number): number => {
  const { hiddenSize: D, intermediateSize: I, imageSize, numChannels } = model.config.visionConfig
  const pixels = 4 * tiles * numChannels * imageSize[0] * imageSize[1]
  const vision = Math.min(tiles, 8) * patchesOf(model) * 4 * (6 * D + I)
  const features = 4 * tiles * model.config.imageSeqLength * model.config.textConfig.hiddenSize
  return pixels + features + Math.max(vision, tokens * rowBytes(model)) + 4 * model.config.textConfig.vocabSize
}

/**
 * Bytes of the activations that a backward pass needs: those of every layer, or with gradient checkpointing the inputs of layers and one
 * layer; and three copies of the logits of all tokens.
 */
export const trainingActivationBytes = (model: InspectedModel, tiles: number, tokens: number, checkpointing: boolean): number => {
  const { visionConfig: vision, textConfig: text } = model.config
  const [visionRow, N] = [4 * (8 * vision.hiddenSize + 2 * vision.intermediateSize), tiles * patchesOf(model)]
  const scores = 4 * tiles * vision.numAttentionHeads * patchesOf(model) ** 2
  const layers = checkpointing
    ? 4 * N * vision.hiddenSize * vision.numHiddenLayers + 4 * tokens * text.hiddenSize * text.numHiddenLayers
    : (N * visionRow + scores) * vision.numHiddenLayers + tokens * rowBytes(model) * text.numHiddenLayers
  const one = checkpointing ? Math.max(N * visionRow + scores, tokens * rowBytes(model)) : 0
  return layers + one + 3 * 4 * tokens * text.vocabSize
}
