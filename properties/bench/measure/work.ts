import type { InternVLCheckpoint } from '../../../generation/checkpoint/load.js'
import { declarations, namedParameters } from '../../../lib/params.js'
import { sizeOf } from '../../../lib/shape.js'
import { partOfPath } from '../../../models/families.js'
import { defaultKVCacheType } from '../../../models/quantization/kv-cache-type.js'

/** Work of a measurement, for comparison with the limits of the machine. */
export interface Work {
  /** Floating-point operations of vision tower and projector. */
  readonly vision: number
  /** Floating-point operations of the first token, vision included. */
  readonly prefill: number
  /** Bytes that a further token reads: weights once, and the keys and values of the mean context. */
  readonly bytesPerToken: number
}

/** Prompt and answer of a measurement. */
export interface Workload {
  readonly tiles: number
  readonly rows: number
  readonly promptTokens: number
  readonly newTokens: number
}

/** Share of a weight that one token uses: a mixture of experts reads the chosen experts only. */
const usedShare = (path: string, { config: { textConfig } }: InternVLCheckpoint): number => {
  const { numExperts, numExpertsPerToken } = textConfig as { readonly numExperts?: number; readonly numExpertsPerToken?: number }
  return path.includes('.experts.') && numExperts ? (numExpertsPerToken ?? numExperts) / numExperts : 1
}

/** Operations of attention, `q kᵀ` and the product with the values, over pairs of a query and a key. */
const attentionFlop = (layers: number, width: number, pairs: number): number => 4 * layers * width * pairs

/** The work of one measurement of a loaded checkpoint. Products and attention are counted, norms and activations are not. */
export const workOf = (internvl: InternVLCheckpoint, { tiles, rows, promptTokens, newTokens }: Workload): Work => {
  const { config, module, params } = internvl
  const { textConfig: text, visionConfig: vision } = config
  const parts = declarations(module).map(([path, { shape }]) => ({ path, part: partOfPath(path), size: sizeOf(shape), shape }))
  const products = (names: readonly string[]) =>
    parts
      .filter(({ part, shape }) => names.includes(part ?? '') && shape.length > 1)
      .reduce((sum, { path, size }) => sum + size * usedShare(path, internvl), 0)
  const hasHead = parts.some(({ part }) => part === 'head')
  const patches = 1 + (vision.imageSize[0] / vision.patchSize[0]) * (vision.imageSize[1] / vision.patchSize[1])
  const visionFlop =
    tiles *
    (2 * products(['vision']) * patches +
      attentionFlop(vision.numHiddenLayers, vision.hiddenSize, patches ** 2) +
      2 * products(['projector']) * config.imageSeqLength)
  const width = text.numAttentionHeads * text.headDim
  const head = products([hasHead ? 'head' : 'embeddings'])
  const decoderFlop =
    rows *
    (2 * products(['decoder']) * promptTokens + attentionFlop(text.numHiddenLayers, width, promptTokens ** 2 / 2) + 2 * head)
  const readOncePerToken = ['decoder', hasHead ? 'head' : 'embeddings']
  const weightBytes = namedParameters(params)
    .filter(([path]) => readOncePerToken.includes(partOfPath(path) ?? ''))
    .reduce((sum, [path, tensor]) => sum + 4 * tensor.size * usedShare(path, internvl), 0)
  const cachedTokens = rows * (promptTokens + newTokens / 2)
  const cacheRow = 2 * text.numKeyValueHeads * text.headDim * (defaultKVCacheType(params) === 'float32' ? 4 : 2)
  return {
    vision: visionFlop,
    prefill: visionFlop + decoderFlop,
    bytesPerToken: weightBytes + text.numHiddenLayers * cacheRow * cachedTokens
  }
}
