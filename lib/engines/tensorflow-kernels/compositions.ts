import { type Activation, activations } from '../../nn/activation.js'
import type { KernelInputs } from '../../ops/kernel.js'
import type { QuantizationFormat } from '../../quantization/formats.js'
import { tf } from '../../tf.js'
import { computeTypes } from './compute-type.js'
import { attendOnDevice, mergeOnDevice, splitOnDevice } from './device-attention.js'
import { cachedAttention } from './device-cached-attention.js'
import { dequantizeOnDevice, packedRows } from './device-dequantize.js'
import { expertProduct, stackOnDevice } from './device-experts.js'
import { embeddingRows, inputGradient, linearProduct, type StoredFormat, weightGradient } from './device-linear.js'
import { type DeviceOps, type DeviceTensor, type OnDevice, typeOf } from './device-ops.js'

type Attributes = Readonly<Record<string, unknown>>

/** A kernel as a composition of TensorFlow's ops: tensors and attributes to the result, or its results. */
export type Composition = (onDevice: OnDevice, inputs: KernelInputs, attributes: Attributes) => tf.Tensor | readonly tf.Tensor[]

/** The tensors of TensorFlow of a kernel's inputs `I`, without the absent ones. */
const bound = <I>(ops: DeviceOps, inputs: KernelInputs): I =>
  Object.fromEntries(Object.entries(inputs).flatMap(([name, t]) => (t ? [[name, ops.of(t)]] : []))) as I

/** A kernel of one output, from tensors of TensorFlow. */
const device =
  <I, A>(compute: (ops: DeviceOps, inputs: I, attributes: A) => DeviceTensor): Composition =>
  (onDevice, inputs, attributes) =>
    onDevice((ops) => compute(ops, bound<I>(ops, inputs), attributes as A))[0]!

interface LinearInputs {
  readonly x: DeviceTensor
  readonly weight: DeviceTensor
  readonly bias?: DeviceTensor
}

interface Format {
  readonly format?: StoredFormat
}

const product = device((ops, { x, weight, bias }: LinearInputs, { format = 'float32' }: Format) => {
  const y = linearProduct(ops, x, weight, format)
  return bias ? ops.elementwise('AddV2', y, bias) : y
})

const linear: Composition = (onDevice, inputs, attributes) => {
  const y = product(onDevice, inputs, attributes) as tf.Tensor
  const { activation } = attributes as { readonly activation?: Activation }
  return activation ? activations[activation](y) : y
}

interface AttentionInputs {
  readonly q: DeviceTensor
  readonly k: DeviceTensor
  readonly v: DeviceTensor
  readonly mask?: DeviceTensor
  readonly sinks?: DeviceTensor
}

interface AttentionAttributes {
  readonly scale: number
  readonly numHeads?: number
  readonly causal?: boolean
  readonly window?: number | undefined
}

const attention = device(
  (ops, inputs: AttentionInputs, { scale, numHeads = 0, causal = false, window = 0 }: AttentionAttributes) => {
    const { q, k, v, mask: padding, sinks } = inputs
    const split = (x: DeviceTensor) => (numHeads ? splitOnDevice(ops, x, numHeads) : x)
    const [keys, values] = [k, v].map((x) => ops.cast(split(x), computeTypes().attention)) as [DeviceTensor, DeviceTensor]
    const mask = { length: keys.shape[2]!, causal, window, padding, sinks }
    const out = attendOnDevice(ops, split(q), keys, values, scale, mask)
    return numHeads ? mergeOnDevice(ops, out) : out
  }
)

const linearBackward: Composition = (onDevice, inputs, attributes) => {
  const { needsX, needsWeight, needsBias, format = 'float32' } = attributes as Format & Readonly<Record<string, boolean>>
  const { dy, x, weight } = inputs as Readonly<Record<string, tf.Tensor>>
  const none = tf.scalar(0)
  const gradient = (f: (ops: DeviceOps) => DeviceTensor) => onDevice(f)[0]!
  return [
    needsX ? gradient((ops) => inputGradient(ops, ops.of(dy!), ops.of(weight!), format, x!.shape.at(-1)!)) : none,
    needsWeight ? gradient((ops) => weightGradient(ops, ops.of(dy!), ops.of(x!))) : none,
    needsBias ? dy!.reshape([-1, dy!.shape.at(-1)!]).sum(0) : none
  ]
}

interface Packed {
  readonly format: QuantizationFormat
  readonly columns: number
}

/**
 * The kernels as compositions of TensorFlow's ops, by the name under which the registry of TensorFlow.js has them. Weights and caches in 16 bits are views of
 * their packed tensors; a product rounds its inputs to the type of the weight (`ComputeTypes`) and sums in float32. All other functions of lib/nn
 * keep their compositions of plain float32 ops.
 */
export const compositions = {
  Linear: linear,
  QuantizedLinear: linear,
  LinearBackward: linearBackward,
  QuantizedLinearBackward: linearBackward,
  Attention: attention,
  CachedAttention: device(cachedAttention),
  DequantizeWeight: device((ops, { x }: { readonly x: DeviceTensor }, { format, columns }: Packed) => {
    const rows = dequantizeOnDevice(ops, format, packedRows(ops, x), columns, 'float32')
    return ops.reshape(rows, [...x.shape.slice(0, -1), columns])
  }),
  /** Rows of a weight `[V, K]`, in any format, at int32 ids */
  GatherRows: device(
    (ops, { weight, ids }: { readonly weight: DeviceTensor; readonly ids: DeviceTensor }, { format, columns }: Packed) =>
      embeddingRows(ops, weight, ids, format, columns)
  ),
  /** Weights in one tensor `[E, …]`, and each as a view of its memory */
  StackWeights: (onDevice, inputs) =>
    onDevice((ops) =>
      stackOnDevice(
        ops,
        Object.values(inputs).map((t) => ops.of(t!))
      )
    ),
  /** Products of rows `[n, K]` with the weights of their ids, int32 of n entries */
  ExpertLinear: device(
    (ops, { x, ids, stack }: Readonly<Record<'x' | 'ids' | 'stack', DeviceTensor>>, { format = 'float32' }: Format) =>
      expertProduct(ops, x, stack, ids, format)
  ),
  /** The same numbers in the memory of the device; int32 too, which TensorFlow.js keeps in host memory */
  ToDevice: device((ops, { x }: { readonly x: DeviceTensor }) => {
    const [type, other] = typeOf(x) === 'int32' ? (['int32', 'float32'] as const) : (['float32', 'int32'] as const)
    return ops.bitcast(ops.bitcast(x, other), type)
  })
} as const satisfies Readonly<Record<string, Composition>>
