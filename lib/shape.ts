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

/** Number of elements of a shape. */
export const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1)
