import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import type { RmsNorm } from '../../nn/norm.js'
import { tf } from '../../tf.js'
import { attr, type NativeBackend } from '../native.js'

const require = createRequire(import.meta.url)

/** Numbers of `Activation` in activation.h, by the names of lib/nn/activation.ts. */
const activations: Readonly<Record<string, number>> = {
  none: 0,
  gelu: 1,
  gelu_new: 2,
  gelu_pytorch_tanh: 2,
  quick_gelu: 3,
  silu: 4,
  swish: 4,
  relu: 5
}

/** Numbers of `Form` in packed.h. */
const formNumbers: Readonly<Record<string, number>> = { float32: 0, bf16: 1, int8: 2, int6: 3, int4: 4 }

/** Numbers of `Stored` in read.cc, by the names of safetensors; `words` are packed already. */
const storedTypes: Readonly<Record<string, number>> = { F32: 0, BF16: 1, F16: 2, words: 3 }

type Inputs = Readonly<Record<string, tf.TensorInfo | undefined>>
type Attributes = Readonly<Record<string, unknown>>

/** How a kernel of lib/nn becomes an op: the op's name, its inputs in order, and the numbers that it is told, in the op's order. */
interface Kernel {
  readonly op: string
  /** Names; whatever is given, in its order, where there are none; or a function that finds them. */
  readonly inputs?: readonly string[] | ((inputs: Inputs, given: Attributes) => readonly tf.TensorInfo[])
  readonly numbers?: (given: Attributes, inputs: Inputs) => readonly unknown[]
  /** What the op is told of at every run alike. */
  readonly fixed?: (given: Attributes) => Fixed
  /** More than one result comes as a list. */
  readonly outputs?: number
}

/** Numbers that an op is told after the others, and tensors of whose places it is told, instead of being given them; they depend on `of` alone. */
interface Fixed {
  readonly of: object
  readonly tensors: () => readonly tf.TensorInfo[]
  readonly numbers: () => readonly unknown[]
}

/** The number of a named activation; none where no name is given. */
export const activationNumber = (name: unknown = 'none'): number => activations[name as string] ?? Number.NaN

const activation = ({ activation }: Attributes) => activationNumber(activation)
const form = (name: unknown = 'float32'): number => formNumbers[name as string] ?? Number.NaN
const stored = (name: unknown): number => storedTypes[name as string] ?? -1

/** Names of the weights and biases of so many maps. */
const mapInputs = (count: number): readonly string[] =>
  Array.from({ length: count }, (_, i) => [`weight${i || ''}`, `bias${i || ''}`]).flat()

/** What an op with room for so many maps is told of them: forms, then which have a bias. The names are made once, not at every op. */
const mapNumbers = (room: number): NonNullable<Kernel['numbers']> => {
  const biases = mapInputs(room).filter((_, i) => i % 2 === 1)
  return (given, inputs) => {
    const forms = (given.forms ?? [given.form]) as readonly unknown[]
    return [...biases.map((_, i) => form(forms[i])), ...biases.map((name) => inputs[name] !== undefined)]
  }
}
const [threeMaps, fourMaps] = [mapNumbers(3), mapNumbers(4)]

/** A product, or the three of a gated unit. */
const products = (count: 1 | 3): Kernel => ({
  op: 'InternvlAffine',
  inputs: ['x', 'norm', 'plus', ...mapInputs(count)],
  numbers: (given, inputs) => [
    ...[activation(given), count > 1, inputs.norm !== undefined, given.eps ?? 0, inputs.plus !== undefined],
    ...threeMaps(given, inputs)
  ]
})

/** What new positions see, and where they are put. */
const step = ['cos', 'sin', 'padding', 'key', 'value']
const stepNumbers = ({ length }: Attributes, { padding }: Inputs): readonly unknown[] => [length, padding !== undefined]

const attends = ['qNorm', 'kNorm', 'sinks']
const attendsNumbers = (
  { scale, heads, keyHeads, window = 0, headEps = 0 }: Attributes,
  { qNorm, sinks }: Inputs
): readonly unknown[] => [scale, heads, keyHeads, window, qNorm !== undefined, headEps, sinks !== undefined]

const branch = {
  inputs: ['norm', ...mapInputs(4), ...attends],
  numbers: (given: Attributes, inputs: Inputs) => [...attendsNumbers(given, inputs), given.eps, ...fourMaps(given, inputs)]
}
const unit = {
  inputs: ['norm', ...mapInputs(3)],
  numbers: (given: Attributes, inputs: Inputs) => [activation(given), given.eps, ...threeMaps(given, inputs)]
}

/** Those of the inputs that are given, in the order of their names. */
const ordered = (names: readonly string[], inputs: Inputs): readonly tf.TensorInfo[] =>
  names.flatMap((name) => inputs[name] ?? [])

/** The parts of all layers, see lib/nn/decoder-layers.ts. */
type Layers = readonly Readonly<Record<'attention' | 'unit', { readonly inputs: Inputs; readonly attributes: Attributes }>>[]

const decoderLayers: Kernel = {
  op: 'InternvlDecoderLayers',
  inputs: ({ x, cos, sin, padding }, { memory }) => [x!, cos!, sin!, ...(padding ? [padding] : []), ...(memory as tf.Tensor[])],
  numbers: (given, inputs) => [
    ...stepNumbers(given, inputs),
    (given.layers as Layers).length,
    (given.norm as RmsNorm['rms']).eps
  ],
  fixed: ({ layers, norm }) => ({
    of: layers as Layers,
    tensors: () => [
      ...(layers as Layers).flatMap(({ attention, unit: { inputs } }) => [
        ...ordered(branch.inputs, attention.inputs),
        ...ordered(unit.inputs, inputs)
      ]),
      (norm as RmsNorm['rms']).weight
    ],
    numbers: () =>
      (layers as Layers).flatMap(({ attention, unit: { attributes, inputs } }) => [
        ...branch.numbers(attention.attributes, attention.inputs),
        ...unit.numbers(attributes, inputs)
      ])
  })
}

const attention: Kernel['numbers'] = ({ scale, heads = 0, keyHeads = heads, causal = false, window = 0 }, { padding }) => [
  ...[scale, heads, keyHeads, causal, window],
  padding !== undefined
]

/** The kernels that `fused` of lib/nn and lib/upload.ts ask for. Files of the same name beside this one hold the ops. */
const kernels: Readonly<Record<string, Kernel>> = {
  Affine: products(1),
  PackedAffine: products(1),
  AffinePlus: products(1),
  GatedUnit: products(3),
  PackWeight: { op: 'InternvlPack', inputs: ['x'], numbers: (given) => [form(given.form)] },
  UnpackWeight: { op: 'InternvlUnpack', inputs: ['x'], numbers: (given) => [form(given.form), given.columns] },
  Activation: { op: 'InternvlActivation', inputs: ['x'], numbers: (given) => [activation(given)] },
  Gated: { op: 'InternvlGated', inputs: ['gate', 'up'], numbers: (given) => [activation(given)] },
  Residual: { op: 'InternvlResidual', inputs: ['x', 'branch', 'scale'] },
  LayerNorm: { op: 'InternvlLayerNorm', inputs: ['x', 'weight', 'bias'], numbers: ({ eps }) => [eps] },
  RmsNorm: { op: 'InternvlRmsNorm', inputs: ['x', 'weight'], numbers: ({ eps }) => [eps] },
  Rope: { op: 'InternvlRope', inputs: ['x', 'cos', 'sin'], numbers: ({ heads = 0 }) => [heads] },
  Attention: {
    op: 'InternvlAttention',
    inputs: ['q', 'k', 'v', 'padding', 'sinks'],
    numbers: attention
  },
  AttendCached: {
    op: 'InternvlAttendCached',
    inputs: ['q', 'k', 'v', ...step, ...attends],
    numbers: (given, inputs) => [...stepNumbers(given, inputs), ...attendsNumbers(given, inputs)]
  },
  AttentionBranch: {
    op: 'InternvlAttentionBranch',
    inputs: ['x', ...step, ...branch.inputs],
    numbers: (given, inputs) => [...stepNumbers(given, inputs), ...branch.numbers(given, inputs)]
  },
  DecoderLayers: decoderLayers,
  AffineSlopes: {
    op: 'InternvlAffineSlopes',
    inputs: ['dy', 'x', 'weight'],
    outputs: 3,
    numbers: ({ forX, forWeight, forBias }) => [forX, forWeight, forBias]
  },
  LoraAffine: {
    op: 'InternvlLoraAffine',
    inputs: ['x', 'weight', 'bias', 'lora_A', 'lora_B', 'scaling', 'into'],
    numbers: (_, { bias, into }) => [bias !== undefined, into !== undefined]
  },
  LoraAffineSlopes: {
    op: 'InternvlLoraAffineSlopes',
    inputs: ['dy', 'x', 'weight', 'lora_A', 'lora_B', 'scaling', 'into'],
    outputs: 4,
    numbers: ({ wanted }, { into }) => [
      ...['x', 'into', 'lora_A', 'lora_B'].map((name) => (wanted as ReadonlySet<string>).has(name)),
      into !== undefined
    ]
  },
  LayerNormSlopes: { op: 'InternvlLayerNormSlopes', inputs: ['dy', 'x', 'weight'], outputs: 3, numbers: ({ eps }) => [eps] },
  RmsNormSlopes: { op: 'InternvlRmsNormSlopes', inputs: ['dy', 'x', 'weight'], outputs: 2, numbers: ({ eps }) => [eps] },
  ActivationSlopes: { op: 'InternvlActivationSlopes', inputs: ['dy', 'x'], numbers: (given) => [activation(given)] },
  GatedSlopes: { op: 'InternvlGatedSlopes', inputs: ['dy', 'gate', 'up'], outputs: 2, numbers: (given) => [activation(given)] },
  ResidualSlopes: { op: 'InternvlResidualSlopes', inputs: ['dy', 'branch', 'scale'], outputs: 2 },
  AttentionSlopes: { op: 'InternvlAttentionSlopes', inputs: ['dy', 'q', 'k', 'v', 'padding'], outputs: 3, numbers: attention },
  TokenLosses: { op: 'InternvlTokenLosses', inputs: ['logits', 'labels'] },
  TokenLossSlopes: { op: 'InternvlTokenLossSlopes', inputs: ['dy', 'logits', 'labels'] },
  AdamW: {
    op: 'InternvlAdamW',
    inputs: ['leaf', 'gradient', 'first', 'second'],
    outputs: 3,
    numbers: ({ scale, beta1, rest1, beta2, rest2, keep, rate, correction, eps }) => [
      ...[scale, beta1, rest1, beta2, rest2, keep, rate, correction, eps]
    ]
  },
  GlobalNorm: { op: 'InternvlGlobalNorm' },
  ReadTensor: {
    op: 'InternvlRead',
    inputs: [],
    numbers: ({ file, offset, size, dtype }) => [file, offset, size, stored(dtype)]
  },
  ReadPacked: {
    op: 'InternvlReadPacked',
    inputs: [],
    numbers: ({ file, offset, rows, columns, dtype, form: name }) => [file, offset, rows, columns, stored(dtype), form(name)]
  }
}

/** Names of the kernels of our own that the present engine has. */
export const kernelsInUse = (): readonly string[] => Object.keys(kernels).filter((name) => tf.getKernel(name, tf.getBackend()))

const typesOf = (tensors: readonly tf.TensorInfo[]) =>
  attr.type(
    'T',
    tensors.map(({ dtype }) => (dtype === 'int32' ? 'int32' : 'float32'))
  )

/**
 * What an op is told of what is fixed: its numbers, how many tensors there are, and the place of each. They are asked for once, and again
 * where a tensor has another handle than it had.
 */
const placesIn = (native: NativeBackend, memory: Float64Array) => {
  const known = new WeakMap<
    object,
    { readonly tensors: readonly tf.TensorInfo[]; readonly handles: readonly number[]; readonly told: Float64Array }
  >()
  const placed = 5 // numbers of a place, see op.h
  return ({ of, ...fixed }: Fixed): Float64Array => {
    const before = known.get(of)
    const tensors = before?.tensors ?? fixed.tensors()
    const handles = native.handles(tensors)
    if (before?.handles.every((handle, i) => handle === handles[i])) return before.told
    for (const done of native.executeOp('InternvlPlaces', [typesOf(tensors)], tensors)) done.dispose()
    const told = Float64Array.from([
      ...fixed.numbers().map(Number),
      tensors.length,
      ...memory.subarray(0, placed * tensors.length)
    ])
    known.set(of, { tensors, handles, told })
    return told
  }
}

/**
 * Loads the compiled kernels, if they are there, and puts them behind TensorFlow.js's registry, where `fused` finds them.
 * Whether it did. They compute on the CPU.
 */
export const loadKernels = (library: string, native: NativeBackend): boolean => {
  if (!existsSync(library)) return false
  if (tf.getKernel('Affine', 'tensorflow')) return true
  const { numbers: memory } = require(library) as { readonly numbers: Float64Array }
  const places = placesIn(native, memory)
  for (const [kernelName, { op, inputs: names, numbers, fixed, outputs = 1 }] of Object.entries(kernels)) {
    const kernelFunc: tf.KernelFunc = ({ inputs, attrs }) => {
      const attributes = (attrs ?? {}) as Attributes
      const given = typeof names === 'function' ? names(inputs, attributes) : ordered(names ?? Object.keys(inputs), inputs)
      const told = (numbers?.(attributes, inputs) ?? []).map(Number) // true is 1
      if (fixed) memory.set(places(fixed(attributes)), told.length)
      memory.set(told) // the op reads them before anyone else runs
      const results = native.executeOp(op, [typesOf(given)], given, outputs)
      return outputs > 1 ? results : results[0]!
    }
    tf.registerKernel({ kernelName, backendName: 'tensorflow', kernelFunc })
  }
  return true
}
