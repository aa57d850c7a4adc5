import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
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
const formNumbers: Readonly<Record<string, number>> = { float32: 0, bf16: 1, int8: 2, int4: 3 }

/** Numbers of `Stored` in read.cc, by the names of safetensors; `words` are packed already. */
const storedTypes: Readonly<Record<string, number>> = { F32: 0, BF16: 1, F16: 2, words: 3 }

type Inputs = Readonly<Record<string, tf.TensorInfo | undefined>>
type Attributes = Readonly<Record<string, unknown>>

/** How a kernel of lib/nn becomes an op: the op's name, its inputs in order, its attributes. */
interface Kernel {
  readonly op: string
  readonly inputs: readonly string[]
  readonly attributes?: (given: Attributes, inputs: Inputs) => Readonly<Record<string, number>>
  /** More than one result comes as a list. */
  readonly outputs?: number
  /** Whole numbers beyond what float32 has exactly. */
  readonly integers?: (given: Attributes) => Readonly<Record<string, number>>
}

/** The number of a named activation; none where no name is given. */
export const activationNumber = (name: unknown = 'none'): number => activations[name as string] ?? Number.NaN

const activation = ({ activation }: Attributes) => ({ activation: activationNumber(activation) })
const form = (name: unknown = 'float32'): number => formNumbers[name as string] ?? Number.NaN
const eps = ({ eps }: Attributes) => ({ eps: eps as number })

const affine: Kernel = {
  op: 'InternvlAffine',
  inputs: ['x', 'weight', 'bias'],
  attributes: (given, { bias }) => ({
    ...activation(given),
    form: form(given.form),
    biased: Number(bias !== undefined),
    gating: 0,
    up_form: 0,
    up_biased: 0
  })
}

/** The kernels that `fused` of lib/nn and lib/upload.ts ask for. Files of the same name beside this one hold the ops. */
const kernels: Readonly<Record<string, Kernel>> = {
  Affine: affine,
  PackedAffine: affine,
  GatedAffine: {
    op: 'InternvlAffine',
    inputs: ['x', 'weight', 'bias', 'upWeight', 'upBias'],
    attributes: (given, { bias, upBias }) => ({
      ...activation(given),
      form: form(given.form),
      biased: Number(bias !== undefined),
      gating: 1,
      up_form: form(given.upForm),
      up_biased: Number(upBias !== undefined)
    })
  },
  PackWeight: { op: 'InternvlPack', inputs: ['x'], attributes: (given) => ({ form: form(given.form) }) },
  UnpackWeight: {
    op: 'InternvlUnpack',
    inputs: ['x'],
    attributes: (given) => ({ form: form(given.form), columns: given.columns as number })
  },
  Activation: { op: 'InternvlActivation', inputs: ['x'], attributes: activation },
  Gated: { op: 'InternvlGated', inputs: ['gate', 'up'], attributes: activation },
  Residual: { op: 'InternvlResidual', inputs: ['x', 'branch', 'scale'] },
  LayerNorm: { op: 'InternvlLayerNorm', inputs: ['x', 'weight', 'bias'], attributes: eps },
  RmsNorm: { op: 'InternvlRmsNorm', inputs: ['x', 'weight'], attributes: eps },
  Rope: { op: 'InternvlRope', inputs: ['x', 'cos', 'sin'], attributes: ({ heads = 0 }) => ({ heads: heads as number }) },
  Attention: {
    op: 'InternvlAttention',
    inputs: ['q', 'k', 'v', 'padding', 'sinks'],
    attributes: ({ scale, heads = 0, keyHeads = heads, causal = false, window = 0 }, { padding }) => ({
      scale: scale as number,
      heads: heads as number,
      key_heads: keyHeads as number,
      causal: Number(causal),
      window: (window as number | undefined) ?? 0,
      padded: padding ? 1 : 0
    })
  },
  AttendCached: {
    op: 'InternvlAttendCached',
    inputs: ['q', 'k', 'v', 'cos', 'sin', 'key', 'value', 'padding', 'sinks'],
    outputs: 3,
    attributes: ({ scale, heads, keyHeads, window = 0, length, room, inPlace }, { key, padding, sinks }) => ({
      scale: scale as number,
      heads: heads as number,
      key_heads: keyHeads as number,
      window: window as number,
      length: length as number,
      room: room as number,
      in_place: Number(inPlace),
      padded: Number(padding !== undefined),
      sunk: Number(sinks !== undefined),
      cached: Number(key !== undefined)
    })
  },
  ReadTensor: {
    op: 'InternvlRead',
    inputs: [],
    integers: ({ file, offset, size, dtype }) => ({
      file: file as number,
      offset: offset as number,
      size: size as number,
      type: storedTypes[dtype as string] ?? -1
    })
  },
  ReadPacked: {
    op: 'InternvlReadPacked',
    inputs: [],
    integers: ({ file, offset, rows, columns, dtype, form: name }) => ({
      file: file as number,
      offset: offset as number,
      rows: rows as number,
      columns: columns as number,
      type: storedTypes[dtype as string] ?? -1,
      form: form(name)
    })
  }
}

/** Names of the kernels of our own that the present engine has. */
export const kernelsInUse = (): readonly string[] => Object.keys(kernels).filter((name) => tf.getKernel(name, tf.getBackend()))

/**
 * Loads the compiled kernels, if they are there, and puts them behind TensorFlow.js's registry, where `fused` finds them.
 * Whether it did. They compute on the CPU.
 */
export const loadKernels = (library: string, native: NativeBackend): boolean => {
  if (!existsSync(library)) return false
  if (tf.getKernel('Affine', 'tensorflow')) return true
  require(library)
  for (const [kernelName, { op, inputs: names, attributes, integers, outputs = 1 }] of Object.entries(kernels)) {
    const kernelFunc: tf.KernelFunc = ({ inputs, attrs }) => {
      const given = names.flatMap((name) => inputs[name] ?? [])
      const floats = Object.entries(attributes?.((attrs ?? {}) as Attributes, inputs) ?? {})
      const wholes = Object.entries(integers?.((attrs ?? {}) as Attributes) ?? {})
      const types = attr.type(
        'T',
        given.map(({ dtype }) => (dtype === 'int32' ? 'int32' : 'float32'))
      )
      const all = [types, ...wholes.map((each) => attr.int(...each)), ...floats.map((each) => attr.float(...each))]
      const results = native.executeOp(op, all, given, outputs)
      return outputs > 1 ? results : results[0]!
    }
    tf.registerKernel({ kernelName, backendName: 'tensorflow', kernelFunc })
  }
  return true
}
