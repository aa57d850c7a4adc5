import { valueText } from './error.js'
import type { tf } from './tf.js'

/** An input tensor of a model has the wrong shape. */
export class ShapeError extends Error {
  override readonly name = 'ShapeError'
}

/**
 * Throws a `ShapeError` unless `tensor` has the given shape; `null` matches any length.
 *
 * `expectShape('pixelValues', pixelValues, [null, 3, 448, 448])`
 */
export const expectShape = (name: string, tensor: tf.Tensor, shape: ReadonlyArray<number | null>): void => {
  const fits = tensor.rank === shape.length && shape.every((n, i) => n === null || n === tensor.shape[i])
  if (!fits)
    throw new ShapeError(`${name}: expected [${shape.map((n) => n ?? '*').join(', ')}], got [${tensor.shape.join(', ')}]`)
}

/** A tensor argument: the tensor, its axes, and the type of its numbers if only one will do. */
export type ArgumentAxes = readonly [tensor: tf.Tensor | undefined, axes: string, dtype?: 'float32' | 'int32']

const isTensor = (value: unknown): value is tf.Tensor =>
  typeof value === 'object' && value !== null && 'shape' in value && Array.isArray(value.shape) && 'dtype' in value

interface ParsedAxes {
  readonly isOpen: boolean
  readonly names: readonly string[]
}

/** Splits axes into those of any number at the front, `…`, and the named ones. */
const parseAxes = (axes: string): ParsedAxes => {
  const names = axes.split(' ').filter((name) => name !== '')
  return names[0] === '…' ? { isOpen: true, names: names.slice(1) } : { isOpen: false, names }
}

/** Parsed axes by text. The texts are constants of the code, some with sizes of a model, so the map stays small. */
const parsed = new Map<string, ParsedAxes>()

const axesOf = (axes: string): ParsedAxes => {
  const known = parsed.get(axes) ?? parseAxes(axes)
  parsed.set(axes, known)
  return known
}

/**
 * Throws a `ShapeError` unless the tensors of an operation have these axes: names separated by spaces. A name has one length in all
 * tensors, a number is a length, `*` any length, and `…` at the front any number of axes. Returns the lengths by name.
 *
 * `const { B, L } = expectAxes('causalLoss', { logits: [logits, 'B L V', 'float32'], labels: [labels, 'B L', 'int32'] })`
 */
export const expectAxes = (
  operation: string,
  tensors: Readonly<Record<string, ArgumentAxes>>
): Readonly<Record<string, number>> => {
  const lengths: Record<string, number> = {}
  const owners: Record<string, string> = {}
  for (const [name, [tensor, axes, dtype]] of Object.entries(tensors)) {
    if (!isTensor(tensor))
      throw new ShapeError(`${operation}: ${name}: expected a tensor [${axes.replaceAll(' ', ', ')}], got ${typeof tensor}`)
    const { isOpen, names } = axesOf(axes)
    const refuse = (got: string): never => {
      throw new ShapeError(`${operation}: ${name}: expected ${dtype ?? 'a tensor'} [${axes.replaceAll(' ', ', ')}], got ${got}`)
    }
    const shown = () => `[${tensor.shape.join(', ')}]`
    if (isOpen ? tensor.rank < names.length : tensor.rank !== names.length) return refuse(shown())
    if (dtype !== undefined && tensor.dtype !== dtype) return refuse(`${tensor.dtype} ${shown()}`)
    for (const [i, axis] of names.entries()) {
      const length = tensor.shape[tensor.rank - names.length + i]!
      const fixed = /^\d+$/.test(axis) ? Number(axis) : lengths[axis]
      if (axis === '*' || fixed === length) continue
      if (fixed !== undefined) return refuse(`${shown()}: ${axis} is ${fixed}${owners[axis] ? ` in ${owners[axis]}` : ''}`)
      lengths[axis] = length
      owners[axis] = name
    }
  }
  return lengths
}

/** Throws a `ShapeError` unless a number that is part of a shape is whole and in a range. */
export const expectWhole = (operation: string, name: string, value: number, least: number, most: number): void => {
  if (!Number.isSafeInteger(value) || value < least || value > most)
    throw new ShapeError(`${operation}: ${name}: expected a whole number from ${least} to ${most}, got ${valueText(value)}`)
}

/** Number of elements of a shape. */
export const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1)
