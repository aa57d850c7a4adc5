/** An element type that kernels take. */
export type Dtype = 'float32' | 'int32'

/** Values of the enums, in the order of their numbers in C++. */
export const enums = {
  Activation: ['none', 'gelu', 'geluTanh', 'quickGelu', 'silu', 'relu'],
  Format: ['float32', 'bfloat16', 'int8', 'int6', 'int4'],
  StoredType: ['float32', 'bfloat16', 'float16', 'packed'],
  /** Arithmetic of matrix products with many rows; `unset` leaves the choice to the library. */
  GemmKind: ['unset', 'float32', 'bfloat16', 'amxBfloat16', 'int16', 'int8']
} as const
export type EnumName = keyof typeof enums

/** Other names of enum values: of `hidden_act` in configurations, of formats as keys of packed weights, of types in safetensors files. */
export const enumAliases: Readonly<Record<EnumName, Readonly<Record<string, string>>>> = {
  Activation: { gelu_new: 'geluTanh', gelu_pytorch_tanh: 'geluTanh', quick_gelu: 'quickGelu', swish: 'silu' },
  Format: { bf16: 'bfloat16' },
  StoredType: { F32: 'float32', BF16: 'bfloat16', F16: 'float16', words: 'packed' },
  GemmKind: {}
}

/** Types of enum parameters: an enum, and the range of its numbers that the parameter takes. */
export const enumTypes = {
  Activation: { of: 'Activation', first: 0, count: 6 },
  Format: { of: 'Format', first: 0, count: 5 },
  PackedFormat: { of: 'Format', first: 1, count: 4 },
  FloatType: { of: 'StoredType', first: 0, count: 3 },
  StoredType: { of: 'StoredType', first: 0, count: 4 }
} as const satisfies Readonly<Record<string, { readonly of: EnumName; readonly first: number; readonly count: number }>>
export type EnumType = keyof typeof enumTypes

/**
 * A parameter of a kernel. `float` is any number, `int` a whole number from 0 on, `bool` a flag; the others are values of an enum. With `count` a list of that many values. A parameter without a default must be given; the default of an `int` may be the name of
 * an earlier parameter.
 */
export interface Parameter {
  readonly type: 'float' | 'int' | 'bool' | EnumType
  readonly default?: number | boolean | string
  readonly count?: number
}

/**
 * An input tensor. Its `shape` is written in axis letters, for example `'... K'`, `'B H L K | B L (H K)'`: equal letters are equal sizes in
 * all inputs, `...` is any number of leading axes (the same ones in all inputs), `1` is an axis of size one, `(H K)` an axis of size
 * H·K, `|` separates shapes of different ranks. With `format`, the name of a parameter, the tensor is a weight in that quantization
 * format: int32 with a packed last axis, unless the format is float32. In the format `transposed` the last two axes are exchanged.
 */
export interface Input {
  readonly dtype: Dtype
  readonly shape: string
  readonly optional?: true
  readonly format?: string
  readonly transposed?: (typeof enums.Format)[number]
}

/**
 * A relation of axes and int parameters, checked after all inputs:
 * - `divides a b`: a > 0 and b is a multiple of a.
 * - `atMost a b [flag]`: a ≤ b (if the bool parameter is set).
 * - `oneOr a b`: a is 1 or b. Holds if a is the axis of an input that is not given.
 * - `even a`.
 * - `sum c a b`: c = a + b; defines the axis c if no input has it.
 */
export type Relation =
  | readonly ['divides' | 'oneOr', a: string, b: string]
  | readonly ['atMost', a: string, b: string, flag?: string]
  | readonly ['even', a: string]
  | readonly ['sum', c: string, a: string, b: string]

/** Parameters and inputs, in the order in which they travel. */
export interface Signature {
  readonly parameters?: Readonly<Record<string, Parameter>>
  readonly inputs?: Readonly<Record<string, Input>>
  /** Sizes of axes that parameters give; 0 leaves the axis to the shapes of the inputs. */
  readonly axes?: Readonly<Record<string, string>>
  readonly relations?: readonly Relation[]
}

export interface Kernel extends Signature {
  /** Name of the TensorFlow operator, without its prefix. Several kernels may be one operator. */
  readonly operator?: string
  /** A part whose parameters and inputs follow the kernel's. */
  readonly part?: 'AttentionWeights' | 'MlpWeights'
  /** Any number of further inputs: float32 tensors of any shape. */
  readonly variadic?: true
  /** The further inputs form groups of this many tensors; every output is a list with one float32 tensor for each group. */
  readonly groupSize?: number
  readonly outputs: Readonly<Record<string, Dtype>>
}
