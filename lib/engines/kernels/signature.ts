import { valueText } from '../../error.js'
import { ShapeError } from '../../shape.js'
import type { tf } from '../../tf.js'
import {
  type Dtype,
  type EnumName,
  type EnumType,
  enumAliases,
  enums,
  enumTypes,
  type Input,
  type Parameter,
  type Relation,
  type Signature
} from './schema-types.js'

import { Axes, isLetter, letter, type Pattern, parseShape } from './shape-pattern.js'

export type Inputs = Readonly<Record<string, tf.TensorInfo | undefined>>
export type Attributes = Readonly<Record<string, unknown>>

const exchanged = (shape: readonly number[]): readonly number[] => [...shape.slice(0, -2), ...shape.slice(-2).reverse()]

const dtypeOf = (input: Dtype, format: number): Dtype => (format > 0 ? 'int32' : input)

const numbersOf = (name: EnumName): ReadonlyMap<unknown, number> => {
  const values: readonly string[] = enums[name]
  const aliases = Object.entries(enumAliases[name]).map(([alias, value]) => [alias, values.indexOf(value)] as const)
  return new Map<unknown, number>([...values.map((value, i) => [value, i] as const), ...aliases])
}
const numbers = { Activation: numbersOf('Activation'), Format: numbersOf('Format'), StoredType: numbersOf('StoredType') }

/** The number of an enum value in C++; `undefined` for a name that is none of the type. */
export const enumNumber = (type: EnumType, name: unknown): number | undefined => {
  const { of, first, count } = enumTypes[type]
  const number = numbers[of].get(name)
  return number !== undefined && number >= first && number < first + count ? number : undefined
}

const expected = ({ type }: Parameter): string => {
  if (type === 'float') return 'a number'
  if (type === 'int') return 'a whole number from 0 on'
  if (type === 'bool') return 'true or false'
  const { of, first, count } = enumTypes[type]
  return `one of ${enums[of].slice(first, first + count).join(', ')}`
}

/** Whether a value is of the parameter's type; `number` is what travels. */
const isValid = ({ type }: Parameter, value: unknown, number: number | undefined): number is number => {
  if (type === 'float') return typeof value === 'number'
  if (type === 'int') return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
  if (type === 'bool') return typeof value === 'boolean'
  return number !== undefined
}

interface CompiledParameter extends Parameter {
  readonly name: string
  readonly at: number
}
interface CompiledInput extends Input {
  readonly name: string
  readonly patterns: readonly Pattern[]
  /** Index of the value that holds the tensor's quantization format. */
  readonly formatAt: number | undefined
  /** Number of the format in which the last two axes are exchanged. */
  readonly transposedFormat: number | undefined
}

/** A signature made ready for calls. */
export interface CompiledSignature {
  /** Number of values that the parameters and the flags of optional inputs take. */
  readonly numValues: number
  /**
   * Checks parameters and inputs, writes the values from `values[at]` on, and appends the tensors in their order. Throws a `ShapeError`
   * that names the kernel, the argument, and what is expected. `axes` keeps the sizes of the axes, for a part that follows.
   */
  readonly write: (
    inputs: Inputs,
    attributes: Attributes,
    values: Float64Array,
    at: number,
    tensors: tf.TensorInfo[],
    axes: Axes
  ) => number
}

export const newAxes = (): Axes => new Axes()

/** Throws the error of a parameter. */
const refuse = (kernel: string, parameter: CompiledParameter, index: number, value: unknown): never => {
  const name = parameter.count ? `${parameter.name}[${index}]` : parameter.name
  throw new ShapeError(
    `${kernel}: ${name}: expected ${expected(parameter)}, got ${typeof value === 'string' ? value : valueText(value)}`
  )
}

const writeParameter = (
  kernel: string,
  parameter: CompiledParameter,
  attributes: Attributes,
  values: Float64Array,
  base: number
) => {
  const { name, type, count, at, default: byDefault } = parameter
  const given = attributes[name]
  for (let i = 0; i < (count ?? 1); i++) {
    const one = count === undefined ? given : (given as readonly unknown[] | undefined)?.[i]
    const value = one ?? (type === 'int' && typeof byDefault === 'string' ? (attributes[byDefault] ?? 0) : byDefault)
    const number =
      type === 'float' || type === 'int' ? (value as number) : type === 'bool' ? Number(value) : enumNumber(type, value)
    if (!isValid(parameter, value, number)) return refuse(kernel, parameter, i, value)
    values[base + at + i] = number
  }
  return undefined
}

/** Prepares the checks of a signature. `kernel` is the name in its errors. */
export const compileSignature = (kernel: string, signature: Signature): CompiledSignature => {
  let numValues = 0
  const parameters = Object.entries(signature.parameters ?? {}).map(([name, parameter]): CompiledParameter => {
    const at = numValues
    numValues += parameter.count ?? 1
    return { ...parameter, name, at }
  })
  const valueAt = (text: string): number => {
    const [, name = '', index = '0'] = /^(\w+)(?:\[(\d+)\])?$/.exec(text) ?? []
    return parameters.find((parameter) => parameter.name === name)!.at + Number(index)
  }
  const nameAt = (at: number): string => parameters.find((parameter) => parameter.at === at)!.name
  const inputs = Object.entries(signature.inputs ?? {}).map(
    ([name, input]): CompiledInput => ({
      ...input,
      name,
      patterns: parseShape(input.shape),
      formatAt: input.format === undefined ? undefined : valueAt(input.format),
      transposedFormat: input.transposed && numbers.Format.get(input.transposed)
    })
  )
  const flagsAt = numValues
  const optionals = inputs.filter((input) => input.optional)
  numValues += optionals.length
  const axisParameters = Object.entries(signature.axes ?? {}).map(([axis, name]) => [letter(axis), valueAt(name)] as const)

  const checkInput = (
    input: CompiledInput,
    tensor: tf.TensorInfo | undefined,
    values: Float64Array,
    base: number,
    axes: Axes
  ): void => {
    const format = input.formatAt === undefined ? 0 : values[base + input.formatAt]!
    const dtype = dtypeOf(input.dtype, format)
    const isTransposed = format > 0 && format === input.transposedFormat
    if (tensor && tensor.dtype === dtype) {
      const shape = isTransposed ? exchanged(tensor.shape) : tensor.shape
      for (const pattern of input.patterns)
        if (pattern.leading || pattern.axes.length === shape.length)
          if (axes.matches(pattern, shape, format)) return
          else break
    }
    const got = tensor ? `${tensor.dtype} [${tensor.shape.join(', ')}]` : 'nothing'
    const shapes = axes.describe(input.patterns, format)
    const order = isTransposed ? ' with the last two axes exchanged' : ''
    throw new ShapeError(`${kernel}: shapes must agree: ${input.name}: expected ${dtype} ${shapes}${order}, got ${got}`)
  }

  const relations = (signature.relations ?? []).map((relation) => compileRelation(kernel, relation, valueAt))

  return {
    numValues,
    write: (given, attributes, values, base, tensors, axes) => {
      for (const parameter of parameters) writeParameter(kernel, parameter, attributes, values, base)
      for (const [axis, at] of axisParameters) {
        const size = values[base + at]!
        if (size > 0 && !axes.bind(axis, size))
          throw new ShapeError(`${kernel}: shapes must agree: expected ${nameAt(at)} = ${axes.sizes[axis]}, got ${size}`)
      }
      let flag = base + flagsAt
      for (const input of inputs) {
        const tensor = given[input.name]
        if (input.optional) values[flag++] = tensor ? 1 : 0
        if (!tensor && input.optional) continue
        checkInput(input, tensor, values, base, axes)
        tensors.push(tensor!)
      }
      for (const check of relations) check(axes, values, base)
      return base + numValues
    }
  }
}

type Check = (axes: Axes, values: Float64Array, base: number) => void

const compileRelation = (kernel: string, [kind, ...names]: Relation, valueAt: (name: string) => number): Check => {
  const terms = names.map((name = '') => (isLetter(name) ? { axis: letter(name), at: -1 } : { axis: -1, at: valueAt(name) }))
  const size = (i: number, axes: Axes, values: Float64Array, base: number): number => {
    const { axis, at } = terms[i]!
    return axis < 0 ? values[base + at]! : axes.sizes[axis]!
  }
  const fail = (text: string, a: number, b?: number): never => {
    const sizes = [a, b].flatMap((value, i) => (value === undefined ? [] : [`${names[i]} = ${value}`]))
    throw new ShapeError(`${kernel}: shapes must agree: expected ${text}, got ${sizes.join(', ')}`)
  }
  const [first, second] = names
  switch (kind) {
    case 'divides':
      return (...call) => {
        const [a, b] = [size(0, ...call), size(1, ...call)]
        if (!(a > 0 && b % a === 0)) fail(`${first} > 0 that divides ${second}`, a, b)
      }
    case 'oneOr':
      return (...call) => {
        const [a, b] = [size(0, ...call), size(1, ...call)]
        if (a >= 0 && a !== 1 && a !== b) fail(`${first} to be 1 or ${second}`, a, b)
      }
    case 'even':
      return (...call) => {
        const a = size(0, ...call)
        if (a % 2 !== 0) fail(`an even ${first}`, a)
      }
    case 'atMost':
      return (...call) => {
        const [a, b] = [size(0, ...call), size(1, ...call)]
        if (a > b && (terms.length < 3 || size(2, ...call) !== 0)) fail(`${first} of at most ${second}`, a, b)
      }
    case 'sum':
      return (axes, values, base) => {
        const sum = size(1, axes, values, base) + size(2, axes, values, base)
        const { axis } = terms[0]!
        if (axes.sizes[axis]! < 0) axes.sizes[axis] = sum
        if (axes.sizes[axis] !== sum) fail(`${first} = ${names[1]} + ${names[2]} = ${sum}`, axes.sizes[axis]!)
      }
  }
}
