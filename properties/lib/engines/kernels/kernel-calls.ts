import {
  enums,
  enumTypes,
  type Input,
  type Kernel,
  type KernelName,
  kernels,
  type Parameter,
  type Relation,
  type Signature
} from '../../../../lib/engines/kernels/schema.js'
import { tf } from '../../../../lib/tf.js'

/** A random generator. */
export interface Random {
  /** A whole number in [0, n). */
  readonly below: (n: number) => number
  readonly pick: <A>(values: readonly A[]) => A
  /** True with the given probability. */
  readonly happens: (probability: number) => boolean
}

/** Source: mulberry32. */
export const randomOf = (seed: number): Random => {
  let state = seed >>> 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
  const below = (n: number) => Math.floor(next() * n)
  return { below, pick: (values) => values[below(values.length)]!, happens: (probability) => next() < probability }
}

export interface KernelCall {
  readonly kernel: KernelName
  readonly inputs: Record<string, tf.Tensor>
  readonly attributes: Record<string, unknown>
}

type Sizes = Record<string, number>

const sizeOf = (name: string, sizes: Sizes): number => sizes[name] ?? 0

/** Small random sizes for all axes that satisfy the relations of a signature. */
const sampleSizes = ({ relations = [], axes = {} }: Signature, random: Random, sizes: Sizes = {}): Sizes => {
  for (const axis of 'ABCDEFGHIJKLMNOPQRSTUVWXYZ') sizes[axis] ??= 1 + random.below(5)
  for (const parameter of ['pastLength']) sizes[parameter] ??= random.below(4)
  for (let pass = 0; pass < 3; pass++)
    for (const [kind, a, b = '', c = ''] of relations) {
      if (kind === 'divides') sizes[b] = sizeOf(a, sizes) * Math.max(1, Math.floor(sizeOf(b, sizes) / sizeOf(a, sizes)))
      if (kind === 'oneOr' && sizes[a] !== sizes[b]) sizes[a] = random.pick([1, sizeOf(b, sizes)])
      if (kind === 'even') sizes[a] = 2 * Math.ceil(sizeOf(a, sizes) / 2)
      if (kind === 'sum') sizes[a] = sizeOf(b, sizes) + sizeOf(c, sizes)
      if (kind === 'atMost') sizes[b] = Math.max(sizeOf(a, sizes), sizeOf(b, sizes))
    }
  for (const [axis, parameter] of Object.entries(axes)) sizes[parameter] = sizeOf(axis, sizes)
  return sizes
}

const sampleShape = (shape: string, sizes: Sizes, leading: readonly number[], alternative: number): number[] => {
  const patterns = shape.split('|')
  const tokens = patterns[alternative % patterns.length]!.match(/\.\.\.|1|\([A-Z] [A-Z]\)|[A-Z]/g) ?? []
  return tokens.flatMap((token) => {
    if (token === '...') return leading
    return token === '1' ? 1 : [...token.replace(/[^A-Z]/g, '')].reduce((size, axis) => size * sizeOf(axis, sizes), 1)
  })
}

const packedColumns = (format: string, columns: number): number => {
  if (format === 'float32') return columns
  return format === 'bfloat16' ? Math.ceil(columns / 2) : Math.ceil(columns / 64) * { int8: 17, int6: 13, int4: 9 }[format]!
}

const tensorOf = (shape: readonly number[], dtype: 'float32' | 'int32' | 'bool', random: Random, labels = false): tf.Tensor => {
  const size = shape.reduce((a, b) => a * b, 1)
  const values = Array.from({ length: size }, () => (labels ? 0 : random.below(9) - 4))
  return tf.tensor(dtype === 'bool' ? values.map((x) => x & 1) : values, [...shape], dtype)
}

const sampleValue = ({ type, count }: Parameter, random: Random): unknown => {
  if (count) return Array.from({ length: count }, () => sampleValue({ type }, random))
  if (type === 'bool') return random.happens(0.5)
  if (type === 'float') return random.pick([0.5, 1, 1e-5])
  if (type === 'int') return random.below(5)
  const { of, first, count: values } = enumTypes[type]
  return enums[of][first + random.below(values)]
}

/** Shape of a tensor in a quantization format, whose last axis is packed, and the last two exchanged if it is transposed. */
const storedShape = (shape: number[], format: string, { transposed }: Input): number[] => {
  if (format === 'float32') return shape
  const stored = [...shape.slice(0, -1), packedColumns(format, shape.at(-1)!)]
  return transposed === format ? [...stored.slice(0, -2), ...stored.slice(-2).reverse()] : stored
}

const sampleSignature = (signature: Signature, random: Random, sizes: Sizes, leading: readonly number[], alternative: number) => {
  const attributes: Record<string, unknown> = {}
  for (const [name, parameter] of Object.entries(signature.parameters ?? {}))
    attributes[name] = parameter.type === 'int' && name in sizes ? sizes[name] : sampleValue(parameter, random)
  const inputs: Record<string, tf.Tensor> = {}
  for (const [name, input] of Object.entries<Input>(signature.inputs ?? {})) {
    if (input.optional && random.happens(0.5)) continue
    const shape = sampleShape(input.shape, sizes, leading, alternative)
    const [, list = '', index] = /^(\w+)(?:\[(\d)\])?$/.exec(input.format ?? '') ?? []
    const given = attributes[list] as string | readonly string[] | undefined
    const format = input.format ? (index === undefined ? (given as string) : given![Number(index)]!) : 'float32'
    inputs[name] = tensorOf(
      storedShape(shape, format, input),
      format !== 'float32' ? 'int32' : input.dtype,
      random,
      name === 'labels'
    )
  }
  return { inputs, attributes }
}

/** A valid call of a kernel, with small tensors. `file` is the descriptor of an open file of some bytes. */
export const sampleCall = (
  kernel: KernelName,
  signatures: Readonly<Record<string, Signature>>,
  random: Random,
  file: number
): KernelCall => {
  const schema: Kernel = kernels[kernel]
  const part = schema.part && signatures[schema.part]
  const decoder: Signature = kernel === 'DecoderLayers' ? signatures.AttentionWeights! : {}
  const fits: readonly Relation[] = kernel === 'DecoderLayers' ? [['atMost', 'S', 'C'], ['atMost', 'R', 'K']] : [] // biome-ignore format: one line
  const relations = [...(part?.relations ?? []), ...(decoder.relations ?? []), ...(schema.relations ?? []), ...fits]
  const sizes = sampleSizes({ relations, axes: { ...schema.axes, ...part?.axes, ...decoder.axes } }, random)
  const leading = Array.from({ length: random.below(3) }, () => 1 + random.below(3))
  const alternative = random.below(2)
  const kernelPart = sampleSignature(schema, random, sizes, leading, alternative)
  const sharedPart = part ? sampleSignature(part, random, sizes, leading, alternative) : { inputs: {}, attributes: {} }
  const attributes: Record<string, unknown> = { ...kernelPart.attributes, ...sharedPart.attributes }
  const inputs: Record<string, tf.Tensor> = { ...kernelPart.inputs, ...sharedPart.inputs }
  if ('file' in attributes) attributes.file = file
  if (kernel === 'GlobalNorm') inputs['a.b'] = tensorOf(leading, 'float32', random)
  if (schema.groupSize) {
    const groups = kernel === 'AdamW' ? sizes.N! : 1 + random.below(3)
    if (kernel === 'AdamW') inputs.rates = tensorOf([groups, 2], 'float32', random)
    for (let i = 0; i < groups; i++)
      for (let j = 0; j < schema.groupSize; j++) inputs[`${i} ${j}`] = tensorOf([...leading, i + 1], 'float32', random)
  }
  if (kernel === 'DecoderLayers') {
    const layer = (name: string) => sampleSignature(signatures[name]!, random, sizes, leading, alternative)
    const layers = Array.from({ length: 1 + random.below(2) }, () => ({
      attention: layer('AttentionWeights'),
      mlp: layer('MlpWeights')
    }))
    const format = attributes.cacheFormat as string
    const { key, value } = kernels.CachedAttention.inputs
    const cache = (input: Input) => {
      const shape = storedShape(sampleShape(input.shape, sizes, [], 0), format, input)
      return tensorOf(shape, format === 'float32' ? 'float32' : 'int32', random)
    }
    attributes.layers = layers
    attributes.numLayers = layers.length
    attributes.caches = layers.flatMap(() => [cache(key), cache(value)])
    attributes.norm = { weight: tensorOf([sizes.D!], 'float32', random), eps: 1e-5 }
  }
  return { kernel, inputs, attributes }
}

const wrongShape = (shape: readonly number[], random: Random): number[] => {
  const changed = [...shape]
  const at = random.below(Math.max(1, changed.length))
  switch (random.below(5)) {
    case 0:
      return changed.slice(0, at)
    case 1:
      return [...changed, 1 + random.below(2)]
    case 2:
      return []
    case 3:
      return changed.map((size, i) => (i === at ? 0 : size))
    default:
      return changed.map((size, i) => (i === at ? size + 1 + random.below(3) : size))
  }
}

/** The call with one to three mistakes: a wrong shape or type, a missing or unknown input, a wrong parameter. */
export const spoil = ({ kernel, inputs, attributes }: KernelCall, random: Random): KernelCall => {
  const wrong = { kernel, inputs: { ...inputs }, attributes: { ...attributes } }
  for (let i = 0; i <= random.below(3); i++) {
    const [input, attribute] = [random.pick(Object.keys(wrong.inputs)), random.pick(Object.keys(wrong.attributes))]
    const tensor = input === undefined ? undefined : wrong.inputs[input]
    if (tensor && random.happens(0.6)) {
      const mistake = random.below(10)
      if (mistake === 0) delete wrong.inputs[input!]
      else if (mistake === 1) wrong.inputs.unknown = tensor
      else if (mistake < 4)
        wrong.inputs[input!] = tensorOf(tensor.shape, random.pick(['float32', 'int32', 'bool'] as const), random)
      else
        wrong.inputs[input!] = tensorOf(
          wrongShape(tensor.shape, random),
          tensor.dtype as 'float32' | 'int32' | 'bool',
          random,
          random.happens(0.5)
        )
    } else if (attribute !== undefined && !['file', 'layers', 'norm', 'caches'].includes(attribute))
      wrong.attributes[attribute] = random.pick<unknown>([
        -1,
        0,
        0.5,
        Number.NaN,
        2 ** 31,
        2 ** 53,
        -(2 ** 40),
        Number.POSITIVE_INFINITY,
        'int3',
        true,
        undefined,
        7
      ])
  }
  return wrong
}
