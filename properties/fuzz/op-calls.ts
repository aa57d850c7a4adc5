import { training } from '../../lib/autograd/train-mode.js'
import { activationNames, activations, gated } from '../../lib/nn/activation.js'
import { attend, attendMerged, mergeHeads, paddingMask, splitHeads } from '../../lib/nn/attention/attention.js'
import { attendCached } from '../../lib/nn/attention/cached-attention.js'
import { layerCache } from '../../lib/nn/attention/kv-cache.js'
import { conv2dPatches } from '../../lib/nn/conv.js'
import { dropout, dropPath } from '../../lib/nn/dropout.js'
import { embedding } from '../../lib/nn/embedding.js'
import { loadBalancingLoss, mixtureOfExperts, topK } from '../../lib/nn/experts.js'
import { resizeGrid } from '../../lib/nn/interpolate.js'
import { affine } from '../../lib/nn/linear.js'
import { causalLoss, crossEntropy, logProbabilities, tokenLosses } from '../../lib/nn/losses/cross-entropy.js'
import { bcoLoss, dpoLoss, mpo } from '../../lib/nn/losses/preference.js'
import { layerNorm, rmsNorm } from '../../lib/nn/norm.js'
import { residual } from '../../lib/nn/residual.js'
import { applyRope, ropeTables } from '../../lib/nn/rope.js'
import { adamW, clipByGlobalNorm } from '../../lib/optim/adamw.js'
import { dequantize, type QuantizedWeight, quantizationFormats, quantize } from '../../lib/quantization/formats.js'
import { tf } from '../../lib/tf.js'

const formatOf = (n: number) => quantizationFormats[Math.abs(n | 0) % quantizationFormats.length]!
/** A size from 1 to 4. */
const small = (n: number): number => 1 + (Math.abs(n | 0) % 4)

type Call = (t: readonly tf.Tensor[], n: readonly number[]) => unknown

/** The functions of `internvl-tfjs/lib` that take tensors, with tensors and numbers in the order of their arguments. */
export const opCalls: Readonly<Record<string, Call>> = {
  layerNorm: ([x, w, b], [eps, width]) => layerNorm(width!, eps!).apply({ weight: w as tf.Tensor1D, bias: b as tf.Tensor1D })(x!),
  rmsNorm: ([x, w], [eps, width]) => rmsNorm(width!, eps!).apply({ weight: w as tf.Tensor1D })(x!),
  attend: ([q, k, v], [scale, causalFrom, window]) => attend(q as tf.Tensor4D, k as tf.Tensor4D, v as tf.Tensor4D, scale!, { causalFrom: causalFrom!, window: window! }),
  attendPadded: ([q, k, v, padding], [scale]) => attend(q as tf.Tensor4D, k as tf.Tensor4D, v as tf.Tensor4D, scale!, { padding: padding as tf.Tensor4D }),
  attendMerged: ([q, k, v], [heads, scale]) => attendMerged(q as tf.Tensor3D, k as tf.Tensor3D, v as tf.Tensor3D, heads!, scale!),
  applyRope: ([x, cos, sin]) => applyRope(x as tf.Tensor4D, { cos: cos as tf.Tensor4D, sin: sin as tf.Tensor4D }),
  affine: ([x, w, b]) => affine(x!, w as tf.Tensor2D, b as tf.Tensor1D),
  residual: ([x, y, scale]) => residual(x!, y!, scale as tf.Tensor1D),
  tokenLosses: ([logits, labels]) => tokenLosses(logits as tf.Tensor2D, labels as tf.Tensor1D),
  crossEntropy: ([logits, labels, weights]) => crossEntropy(logits as tf.Tensor2D, labels as tf.Tensor1D, weights as tf.Tensor1D),
  causalLoss: ([logits, labels]) => causalLoss(logits as tf.Tensor3D, labels as tf.Tensor2D),
  logProbabilities: ([logits, labels]) => logProbabilities(logits as tf.Tensor3D, labels as tf.Tensor2D),
  gelu: ([x]) => activations.gelu(x!),
  gated: ([x, y]) => gated('silu', x!, y!),
  splitHeads: ([x], [heads]) => splitHeads(x as tf.Tensor3D, heads!),
  mergeHeads: ([x]) => mergeHeads(x as tf.Tensor4D),
  paddingMask: ([x]) => paddingMask(x as tf.Tensor2D),
  topK: ([x], [k]) => topK(x as tf.Tensor2D, k!),
  quantize: ([x], [format]) => dequantize(quantize(formatOf(format!), x as tf.Tensor2D), x!.shape.at(-1) ?? 0),
  dequantize: ([x], [format, columns]) => dequantize({ [formatOf(format!)]: x } as unknown as QuantizedWeight, columns!),
  causalLossWeighted: ([logits, labels, weights]) => causalLoss(logits as tf.Tensor3D, labels as tf.Tensor2D, weights as tf.Tensor2D),
  attendSegments: ([q, k, v, segments], [scale, causalFrom]) => attend(q as tf.Tensor4D, k as tf.Tensor4D, v as tf.Tensor4D, scale!, { causalFrom: causalFrom!, segments: segments as tf.Tensor2D }),
  attendSinks: ([q, k, v, sinks], [scale]) => attend(q as tf.Tensor4D, k as tf.Tensor4D, v as tf.Tensor4D, scale!, { sinks: sinks as tf.Tensor1D }),
  attendCached: ([q, k, cos, sin], [heads, groups]) => {
    const { out, cache } = attendCached([q as tf.Tensor3D, k as tf.Tensor3D, k as tf.Tensor3D], undefined, { numHeads: heads!, numKeyValueHeads: groups!, rope: { cos: cos as tf.Tensor4D, sin: sin as tf.Tensor4D } })
    return [out, cache.key, cache.value]
  },
  attendPast: ([q, key, value, cos], [heads, groups, length]) =>
    attendCached([q as tf.Tensor3D, q as tf.Tensor3D, q as tf.Tensor3D], layerCache(key as tf.Tensor4D, value as tf.Tensor4D, length!), { numHeads: heads!, numKeyValueHeads: groups!, rope: { cos: cos as tf.Tensor4D, sin: cos as tf.Tensor4D } }).out,
  affineActivated: ([x, w, b, r], [activation]) => affine(x!, w as tf.Tensor2D, b as tf.Tensor1D, activationNames[Math.abs(activation! | 0) % activationNames.length], r),
  conv2dPatches: ([x], [channels, h, w]) => conv2dPatches(small(channels!), 2, [small(h!), small(w!)]).apply({ weight: tf.zeros([2, small(channels!), small(h!), small(w!)]), bias: tf.zeros([2]) })(x as tf.Tensor4D),
  embedding: ([weight, ids]) => embedding(weight!.shape[0] ?? 1, weight!.shape[1] ?? 1).apply({ weight: weight as tf.Tensor2D })(ids as tf.Tensor2D),
  dropPath: ([x], [share]) => training({ seed: 1, dropPath: 0.5 }, () => dropPath(x!, share!)),
  dropout: ([x], [rate]) => training({ seed: 1, dropout: 0.5 }, () => dropout(x!, rate!)),
  resizeGrid: ([x], [h, w, rows]) => resizeGrid(x as tf.Tensor2D, [h!, w!], [rows!, 3]),
  mixtureOfExperts: ([x, weights, chosen]) => mixtureOfExperts(x as tf.Tensor2D, { experts: (chosen!.arraySync() as number[][]), weights: weights as tf.Tensor2D }, (_, rows) => rows.clone()),
  loadBalancingLoss: ([a, b, mask], [k]) => loadBalancingLoss([a as tf.Tensor2D, b as tf.Tensor2D], k!, mask as tf.Tensor2D),
  dpoLoss: ([chosen, rejected]) => dpoLoss({ chosen: chosen as tf.Tensor1D, rejected: rejected as tf.Tensor1D }),
  bcoLoss: ([chosen, rejected], [delta]) => bcoLoss({ chosen: chosen as tf.Tensor1D, rejected: rejected as tf.Tensor1D }, delta!),
  preferenceLoss: ([chosen, rejected], [a, b, tokens]) => mpo({ chosen: chosen as tf.Tensor1D, rejected: rejected as tf.Tensor1D }, { chosen: [a!], rejected: [b!] }, tokens!).loss,
  ropeTables: (_, positions) => Object.values(ropeTables({ inverse: [1, 0.5], scaling: 1 }, [positions, positions.slice(1)])),
  adamW: ([leaf, gradient]) => {
    const { init, update } = adamW({ learningRate: 0.1 })
    return Object.values(update({ leaf: leaf! }, { leaf: gradient! }, init({ leaf: leaf! })).params)
  },
  clipByGlobalNorm: ([a, b], [norm]) => Object.values(clipByGlobalNorm(norm!)({ a: a!, b: b! }).grads)
} // biome-ignore format: one line a call
