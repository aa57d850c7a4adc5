import fc from 'fast-check'
import { kernelsInUse } from '../../../lib/engines/kernels/register.js'
import { type KernelName, kernels, parts } from '../../../lib/engines/kernels/schema.js'
import { activations, gated } from '../../../lib/nn/activation.js'
import { attend, attendMerged, mergeHeads, paddingMask, splitHeads } from '../../../lib/nn/attention.js'
import { topK } from '../../../lib/nn/experts.js'
import { affine } from '../../../lib/nn/linear.js'
import { causalLoss, crossEntropy, logProbabilities, tokenLosses } from '../../../lib/nn/losses/cross-entropy.js'
import { layerNorm, rmsNorm } from '../../../lib/nn/norm.js'
import { residual } from '../../../lib/nn/residual.js'
import { applyRope } from '../../../lib/nn/rope.js'
import { runKernel } from '../../../lib/ops/kernel.js'
import { dequantize, type QuantizationFormat, quantize } from '../../../lib/quantization/formats.js'
import { ShapeError } from '../../../lib/shape.js'
import { tf } from '../../../lib/tf.js'
import { randomOf, sampleCall, spoil } from '../../lib/engines/kernels/kernel-calls.js'
import { numbers } from '../awkward.js'
import { verdictOf } from '../verdict.js'
import { fuzzKind } from './fuzz-kind.js'

type Shape = readonly number[]
interface TensorSpec {
  readonly shape: Shape
  readonly dtype: 'float32' | 'int32'
}

type Input =
  | { readonly registry: number; readonly seed: number }
  | { readonly call: string; readonly tensors: readonly TensorSpec[]; readonly numbers: readonly number[] }

type Call = (t: readonly tf.Tensor[], n: readonly number[]) => unknown

/** The package's exports that reach a kernel, with tensors and numbers in the order of their arguments. */
const calls: Readonly<Record<string, Call>> = {
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
  quantize: ([x], [format]) => dequantize(quantize((['bf16', 'int8', 'int6', 'int4'] as const)[Math.abs(format! | 0) % 4] as QuantizationFormat, x as tf.Tensor2D), x!.shape.at(-1) ?? 0)
} // biome-ignore format: one line a call

const size = fc.oneof({ weight: 4, arbitrary: fc.constantFrom(2, 4) }, fc.nat(9), fc.constantFrom(0, 1, 64, 65))
const spec: fc.Arbitrary<TensorSpec> = fc.record({
  shape: fc.array(size, { maxLength: 5 }),
  dtype: fc.oneof(
    { weight: 4, arbitrary: fc.constant('float32' as const) },
    { weight: 1, arbitrary: fc.constant('int32' as const) }
  )
})

/** One shape for all tensors, or a shape for each: equal shapes pass more checks. */
const specs = fc.oneof(
  fc.array(spec, { minLength: 4, maxLength: 4 }),
  spec.map((one) => Array<TensorSpec>(4).fill(one)),
  fc
    .tuple(spec, size)
    .map(([one, n]) => [one, ...Array<TensorSpec>(3).fill({ shape: [one.shape.at(-1) ?? n], dtype: 'float32' })])
)

const makeTensor = ({ shape, dtype }: TensorSpec): tf.Tensor => {
  const length = shape.reduce((a, b) => a * b, 1)
  return tf.tensor(
    Array.from({ length }, (_, i) => (dtype === 'int32' ? i % 3 : Math.sin(i))),
    [...shape],
    dtype
  )
}

const readAll = (result: unknown): void => {
  for (const y of [result].flat()) if (y instanceof tf.Tensor) y.dataSync()
}

const registryCall = (index: number, seed: number): boolean => {
  const found = new Set(kernelsInUse())
  const names = (Object.keys(kernels) as KernelName[]).filter(
    (name) => found.has(name) && kernels[name] && !/File|Upload|Read/.test(name)
  )
  if (names.length === 0) return false
  const random = randomOf(seed)
  const { kernel, inputs, attributes } = spoil(sampleCall(names[index % names.length]!, parts, random, -1), random)
  readAll(runKernel(kernel, inputs, attributes))
  return true
}

/** Calls of kernels with tensors and numbers of any shape, type and size, through the package's exports and through the registry. */
export const kernelKind = fuzzKind<Input>({
  name: 'kernel',
  arbitrary: fc.oneof(
    { weight: 2, arbitrary: fc.record({ call: fc.constantFrom(...Object.keys(calls)), tensors: specs, numbers: fc.tuple(numbers, numbers, numbers) }) },
    { weight: 1, arbitrary: fc.record({ registry: fc.nat(200), seed: fc.nat() }) }
  ), // biome-ignore format: one line a form
  run: async (input) =>
    tf.tidy(() => {
      if ('registry' in input) return registryCall(input.registry, input.seed)
      readAll(calls[input.call]!(input.tensors.map(makeTensor), input.numbers))
      return true
    })
})
