import { createHash } from 'node:crypto'
import {
  type EnumType,
  enums,
  enumTypes,
  type Input,
  type Kernel,
  type Parameter,
  type Relation,
  type Signature
} from './schema-types.js'

export * from './schema-types.js'

const float32 = (shape: string): Input => ({ dtype: 'float32', shape })
const int32 = (shape: string): Input => ({ dtype: 'int32', shape })
const optional = (shape: string) => ({ ...float32(shape), optional: true }) as const
const weight = (shape: string, format: string): Input => ({ ...float32(shape), format })

const float: Parameter = { type: 'float' }
const int: Parameter = { type: 'int' }
const bool: Parameter = { type: 'bool' }
const flag: Parameter = { type: 'bool', default: false }
const activation: Parameter = { type: 'Activation', default: 'none' }
const formats = (count: number): Parameter => ({ type: 'Format', default: 'float32', count })

const y = { y: 'float32' } as const

/** Position in the KV cache, rotary tables and mask of new positions: cos and sin `[B or 1, 1, L, R]`, additive mask `[B or 1, 1, 1, S]`. */
const rope = { cos: float32('T 1 L R'), sin: float32('T 1 L R') }
const positions = { ...rope, mask: optional('M 1 1 S') }
const positionRelations: readonly Relation[] = [
  ['oneOr', 'T', 'B'],
  ['even', 'R'],
  ['sum', 'S', 'pastLength', 'L'],
  ['oneOr', 'M', 'B']
]
const cacheRelations: readonly Relation[] = [...positionRelations, ['atMost', 'S', 'C'], ['atMost', 'R', 'K']]
/** Keys and values of all positions, in a format of weights: a row is one position of one head. Keys in bfloat16 are transposed, `[B, G, ⌈K/2⌉, C]`. */
const key: Input = { ...weight('B G C K', 'cacheFormat'), transposed: 'bfloat16' }
const kvCache = { key, value: weight('B G C K', 'cacheFormat') }
const cacheParameters = { pastLength: int, cacheFormat: { type: 'Format', default: 'float32' } } as const
/** K cannot be read from the shape of a packed cache. */
const headDimParameter = { headDim: int } as const

/** Heads of cached attention: H query heads that share G key/value heads. */
const heads = {
  scale: float,
  numHeads: int,
  numKeyValueHeads: int,
  window: { ...int, default: 0 },
  headEps: { ...float, default: 0 }
}
const headAxes = { H: 'numHeads', G: 'numKeyValueHeads' }
const headNorms = { qNorm: optional('K'), kNorm: optional('K'), sinks: optional('H') }

/** Groups of parameters and inputs that several kernels contain. */
export const parts = {
  /** Pre-norm, q, k, v and o projections (weight, weight1, weight2, weight3), norms of heads and sinks of an attention block. */
  AttentionWeights: {
    parameters: { ...heads, eps: float, formats: formats(4) },
    axes: headAxes,
    inputs: {
      norm: float32('D'),
      weight: weight('(H K) D', 'formats[0]'),
      bias: optional('(H K)'),
      weight1: weight('(G K) D', 'formats[1]'),
      bias1: optional('(G K)'),
      weight2: weight('(G K) D', 'formats[2]'),
      bias2: optional('(G K)'),
      weight3: weight('D (H K)', 'formats[3]'),
      bias3: optional('D'),
      ...headNorms
    },
    relations: [['divides', 'G', 'H']]
  },
  /** Pre-norm and gate, up and down projections (weight, weight1, weight2) of a gated MLP. */
  MlpWeights: {
    parameters: { activation, eps: float, formats: formats(3) },
    inputs: {
      norm: float32('D'),
      weight: weight('I D', 'formats[0]'),
      bias: optional('I'),
      weight1: weight('I D', 'formats[1]'),
      bias1: optional('I'),
      weight2: weight('D I', 'formats[2]'),
      bias2: optional('D')
    }
  }
} as const satisfies Readonly<Record<string, Signature>>
export type PartName = keyof typeof parts

const linear = {
  operator: 'Linear',
  parameters: { activation, format: { type: 'Format', default: 'float32' } },
  inputs: { x: float32('... K'), residual: optional('... N'), weight: weight('N K', 'format'), bias: optional('N') },
  outputs: y
} as const satisfies Kernel

const attention = {
  parameters: {
    scale: float,
    numHeads: { ...int, default: 0 },
    numKeyValueHeads: { ...int, default: 'numHeads' },
    causal: flag,
    window: { ...int, default: 0 },
    /** The products of many queries may be in bfloat16, with float32 sums, or without a causal mask in integers. */
    bfloat16: flag
  },
  axes: headAxes,
  relations: [
    ['divides', 'G', 'H'],
    ['oneOr', 'M', 'B'],
    ['atMost', 'L', 'S', 'causal']
  ]
} as const satisfies Signature
const queries = 'B H L K | B L (H K)'
const keys = 'B G S K | B S (G K)'
/** Sample numbers of packed rows: a query attends to keys of its own sample, which are neighbours. */
const segments = { ...int32('B S'), optional: true } as const

/**
 * The kernels by the name under which TensorFlow.js's registry has them. This schema is the single source of their signatures: the
 * TypeScript types, the checks of a call, and the C++ structs (cpu/operator/kernel-parameters.h, by `npm run build:kernels`) derive from it.
 */
export const kernels = {
  /** `act(x Wᵀ + b) + residual` */
  Linear: linear,
  QuantizedLinear: linear,
  LinearResidual: linear,
  /** q, k and v of one input: `x Wᵀ + b` for three weights */
  QkvLinear: {
    parameters: { formats: formats(3) },
    inputs: {
      x: float32('... K'),
      weight: weight('N K', 'formats[0]'),
      bias: optional('N'),
      weight1: weight('P K', 'formats[1]'),
      bias1: optional('P'),
      weight2: weight('Q K', 'formats[2]'),
      bias2: optional('Q')
    },
    outputs: { q: 'float32', k: 'float32', v: 'float32' }
  },
  /** gate and up of a gated MLP, of one input: `x Wᵀ + b` for two weights */
  GateUpLinear: {
    parameters: { formats: formats(2) },
    inputs: {
      x: float32('... K'),
      weight: weight('N K', 'formats[0]'),
      bias: optional('N'),
      weight1: weight('P K', 'formats[1]'),
      bias1: optional('P')
    },
    outputs: { gate: 'float32', up: 'float32' }
  },
  /** `down(act(gate(n)) ⊙ up(n)) + residual` of `n = norm(x)` */
  GatedMlp: {
    parameters: { activation, eps: { ...float, default: 0 }, formats: formats(3) },
    inputs: {
      x: float32('... D'),
      norm: optional('D'),
      residual: optional('... N'),
      weight: weight('I D', 'formats[0]'),
      bias: optional('I'),
      weight1: weight('I D', 'formats[1]'),
      bias1: optional('I'),
      weight2: weight('N I', 'formats[2]'),
      bias2: optional('N')
    },
    outputs: y
  },
  QuantizeWeight: { parameters: { format: { type: 'PackedFormat' } }, inputs: { x: float32('N K') }, outputs: { y: 'int32' } },
  DequantizeWeight: {
    parameters: { format: { type: 'PackedFormat' }, columns: int },
    axes: { K: 'columns' },
    inputs: { x: { ...int32('... K'), format: 'format' } },
    outputs: y
  },
  Activation: { parameters: { activation }, inputs: { x: float32('...') }, outputs: y },
  GatedActivation: { parameters: { activation }, inputs: { gate: float32('...'), up: float32('...') }, outputs: y },
  ScaledResidual: { inputs: { x: float32('... D'), branch: float32('... D'), scale: float32('D') }, outputs: y },
  LayerNorm: {
    parameters: { eps: float },
    inputs: { x: float32('... D'), weight: float32('D'), bias: float32('D') },
    outputs: y
  },
  RmsNorm: {
    parameters: { eps: float },
    inputs: { x: float32('... N'), weight: float32('D') },
    relations: [['divides', 'D', 'N']],
    outputs: y
  },
  /** Rotates heads `[B, H, L, K]`, or `[B, L, H·K]` with `numHeads`; by the opposite angles if `inverse`. */
  Rope: {
    parameters: { numHeads: { ...int, default: 0 }, inverse: flag },
    axes: { H: 'numHeads' },
    inputs: { x: float32(queries), ...rope },
    relations: [
      ['oneOr', 'T', 'B'],
      ['even', 'R'],
      ['atMost', 'R', 'K']
    ],
    outputs: y
  },
  Attention: {
    ...attention,
    inputs: {
      q: float32(queries),
      k: float32(keys),
      v: float32(keys),
      mask: optional('M 1 1 S'),
      sinks: optional('H'),
      segments
    },
    outputs: y
  },
  CachedAttention: {
    parameters: { ...cacheParameters, ...heads },
    axes: headAxes,
    inputs: {
      q: float32('B L (H K)'),
      k: float32('B L (G K)'),
      v: float32('B L (G K)'),
      ...positions,
      ...kvCache,
      ...headNorms
    },
    relations: [['divides', 'G', 'H'], ...cacheRelations],
    outputs: y
  },
  AttentionBlock: {
    parameters: { ...cacheParameters, ...headDimParameter },
    axes: { K: 'headDim' },
    inputs: { x: float32('B L D'), ...positions, ...kvCache },
    relations: cacheRelations,
    part: 'AttentionWeights',
    outputs: y
  },
  /** The variadic inputs are key and value caches of each layer. Weights and their parameters follow in the fixed part, see register.ts. */
  DecoderLayers: {
    parameters: { ...cacheParameters, ...headDimParameter, numLayers: int, eps: float },
    axes: { K: 'headDim' },
    inputs: { x: float32('B L D'), ...positions },
    relations: positionRelations,
    variadic: true,
    outputs: y
  },
  LinearBackward: {
    parameters: { needsX: bool, needsWeight: bool, needsBias: bool },
    inputs: { dy: float32('... N'), x: float32('... K'), weight: float32('N K') },
    outputs: { dx: 'float32', dweight: 'float32', dbias: 'float32' }
  },
  /** The gradient of x is the sum over the three layers. */
  QkvLinearBackward: {
    parameters: { needsX: bool, needsWeight: { ...bool, count: 3 }, needsBias: { ...bool, count: 3 } },
    inputs: {
      dq: float32('... N'),
      dk: float32('... P'),
      dv: float32('... Q'),
      x: float32('... K'),
      weight: float32('N K'),
      weight1: float32('P K'),
      weight2: float32('Q K')
    },
    outputs: {
      dx: 'float32',
      dweight: 'float32',
      dbias: 'float32',
      dweight1: 'float32',
      dbias1: 'float32',
      dweight2: 'float32',
      dbias2: 'float32'
    }
  },
  /** The gradient of x is the sum over the two layers. */
  GateUpLinearBackward: {
    parameters: { needsX: bool, needsWeight: { ...bool, count: 2 }, needsBias: { ...bool, count: 2 } },
    inputs: {
      dgate: float32('... N'),
      dup: float32('... P'),
      x: float32('... K'),
      weight: float32('N K'),
      weight1: float32('P K')
    },
    outputs: { dx: 'float32', dweight: 'float32', dbias: 'float32', dweight1: 'float32', dbias1: 'float32' }
  },
  /** `x Wᵀ + b + scaling · (d Aᵀ) Bᵀ`, where d is `loraInput` (x after dropout), or x */
  LoraLinear: {
    inputs: {
      x: float32('... K'),
      weight: float32('N K'),
      bias: optional('N'),
      lora_A: float32('Q K'),
      lora_B: float32('N Q'),
      scaling: float32(''),
      loraInput: optional('... K')
    },
    outputs: y
  },
  LoraLinearBackward: {
    parameters: { needsX: bool, needsLoraInput: bool, needsLoraA: bool, needsLoraB: bool },
    inputs: {
      dy: float32('... N'),
      x: float32('... K'),
      weight: float32('N K'),
      lora_A: float32('Q K'),
      lora_B: float32('N Q'),
      scaling: float32(''),
      loraInput: optional('... K')
    },
    outputs: { dx: 'float32', dlora_input: 'float32', dlora_a: 'float32', dlora_b: 'float32' }
  },
  // `sum` is the gradient of x from other operations, to which that of the norm is added: x of a residual block has both
  LayerNormBackward: {
    parameters: { eps: float },
    inputs: { dy: float32('... D'), x: float32('... D'), weight: float32('D'), sum: optional('... D') },
    outputs: { dx: 'float32', dweight: 'float32', dbias: 'float32' }
  },
  RmsNormBackward: {
    parameters: { eps: float },
    inputs: { dy: float32('... N'), x: float32('... N'), weight: float32('D'), sum: optional('... N') },
    relations: [['divides', 'D', 'N']],
    outputs: { dx: 'float32', dweight: 'float32' }
  },
  ActivationBackward: {
    parameters: { activation },
    inputs: { dy: float32('...'), x: float32('...') },
    outputs: { dx: 'float32' }
  },
  GatedActivationBackward: {
    parameters: { activation },
    inputs: { dy: float32('...'), gate: float32('...'), up: float32('...') },
    outputs: { dgate: 'float32', dup: 'float32' }
  },
  ScaledResidualBackward: {
    inputs: { dy: float32('... D'), branch: float32('... D'), scale: float32('D') },
    outputs: { dbranch: 'float32', dscale: 'float32' }
  },
  AttentionBackward: {
    ...attention,
    inputs: {
      dy: float32(queries),
      q: float32(queries),
      k: float32(keys),
      v: float32(keys),
      mask: optional('M 1 1 S'),
      segments
    },
    outputs: { dq: 'float32', dk: 'float32', dv: 'float32' }
  },
  /** `−log softmax(logits)[label]`, 0 for the label -100 */
  CrossEntropy: { inputs: { logits: float32('... V'), labels: int32('...') }, outputs: y },
  CrossEntropyBackward: {
    inputs: { dy: float32('...'), logits: float32('... V'), labels: int32('...') },
    outputs: { dx: 'float32' }
  },
  /**
   * One step of all parameters: the new parameters and their moments. The further inputs are leaf, gradient, first and second moment of
   * each; a row of `rates` has the factor of its weight decay and its step size, which contains the bias correction of the first moment.
   */
  AdamW: {
    parameters: {
      gradScale: float,
      beta1: float,
      oneMinusBeta1: float,
      beta2: float,
      oneMinusBeta2: float,
      secondCorrection: float,
      eps: float
    },
    inputs: { rates: float32('N R') },
    variadic: true,
    groupSize: 4,
    outputs: { leaf: 'float32', first: 'float32', second: 'float32' }
  },
  /** The sum of each two further inputs. */
  AddPairs: { variadic: true, groupSize: 2, outputs: y },
  GlobalNorm: { variadic: true, outputs: y },
  /** `size` numbers at byte `offset` of an open file, in float32 */
  ReadTensor: { parameters: { file: int, offset: int, size: int, dtype: { type: 'FloatType' } }, outputs: y },
  /** `[rows, columns]` numbers of an open file in a quantization format; of type `packed`, `columns` int32 words a row, copied */
  ReadQuantized: {
    parameters: {
      file: int,
      offset: int,
      rows: int,
      columns: int,
      dtype: { type: 'StoredType' },
      format: { type: 'PackedFormat' }
    },
    outputs: { y: 'int32' }
  }
} as const satisfies Readonly<Record<string, Kernel>>

export type KernelName = keyof typeof kernels

/** Settings of the library, which hold until they are changed; cpu/operator/kernel-settings.h has the same order. */
export const kernelSettings = ['float32Activations', 'float32', 'bfloat16', 'int8', 'int6', 'int4', 'attention'] as const

type ValueOf<P extends Parameter> = P['type'] extends 'bool' ? boolean : P['type'] extends EnumType ? string : number
type ParameterValue<P extends Parameter> = P extends { readonly count: number } ? readonly ValueOf<P>[] : ValueOf<P>
type ParametersOf<K> = K extends { readonly parameters: infer P extends Readonly<Record<string, Parameter>> }
  ? P
  : Record<never, never>

/** Attributes of a kernel call: its parameters, those with a default optional. */
export type KernelAttributes<K extends KernelName> = {
  readonly [P in keyof ParametersOf<(typeof kernels)[K]>]?: ParametersOf<(typeof kernels)[K]>[P] extends Parameter
    ? ParameterValue<ParametersOf<(typeof kernels)[K]>[P]> | undefined
    : never
}

/** Names of the inputs of a kernel call. */
export type KernelInputName<K extends KernelName> = (typeof kernels)[K] extends { readonly inputs: infer I }
  ? keyof I & string
  : string

/** Version of the schema: a library compiled from another one must not be called. */
export const schemaVersion: string = createHash('sha256')
  .update(JSON.stringify([enums, enumTypes, parts, kernels, kernelSettings]))
  .digest('hex')
  .slice(0, 16)
