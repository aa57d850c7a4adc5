import { isHalfFormat, type QuantizationFormat } from '../../quantization/formats.js'
import { computeTypes } from './compute-type.js'
import { dequantizeOnDevice, packedRows } from './device-dequantize.js'
import { asRows, type DeviceOps, type DeviceTensor, type DeviceType, tileRows, tiles } from './device-ops.js'

export type StoredFormat = QuantizationFormat | 'float32'

/** Weights that are dequantized at a time: 32 Mi, 64 MiB in bfloat16. */
const maxTile = 32 * 2 ** 20

/** The type of a product with a weight in a format: a float16 weight keeps its bits instead of being rounded to bfloat16. */
export const productType = (format: StoredFormat): DeviceType => {
  const { float32, packed } = computeTypes()
  if (format === 'float32') return float32
  return format === 'f16' && packed === 'bfloat16' ? 'float16' : packed
}

/** Rows `[from, from + size)` of a stored weight `[N, K]`, in `type`. */
const weightRows = (
  ops: DeviceOps,
  format: StoredFormat,
  weight: DeviceTensor,
  K: number,
  [from, size]: readonly [number, number],
  type: DeviceType
): DeviceTensor => {
  const rows = ops.slice(weight, [from, 0], [size, weight.shape[1]!])
  return format === 'float32' ? ops.cast(rows, type) : dequantizeOnDevice(ops, format, rows, K, type)
}

/** Tiles of the rows of a weight. Formats of 16 and 32 bits are views, one tile; the others are dequantized tile by tile. */
const weightTiles = (format: StoredFormat, [N, K]: readonly [number, number]) =>
  tiles(N, format === 'float32' || isHalfFormat(format) ? Math.max(1, N) : tileRows(K, maxTile))

const stored = (ops: DeviceOps, format: StoredFormat, weight: DeviceTensor): DeviceTensor =>
  format === 'float32' ? weight : packedRows(ops, weight)

/** `x Wᵀ`, `[…, K] → […, N]` in float32, of a stored weight `[N, K]`; inputs are rounded to the type of the product. */
export const linearProduct = (ops: DeviceOps, x: DeviceTensor, weight: DeviceTensor, format: StoredFormat): DeviceTensor => {
  const [N, K] = [weight.shape[0]!, x.shape.at(-1)!]
  const type = productType(format)
  const rows = ops.cast(asRows(ops, x), type)
  const W = stored(ops, format, weight)
  const parts = weightTiles(format, [N, K]).map((tile) =>
    ops.matMul(rows, weightRows(ops, format, W, K, tile, type), { y: true })
  )
  const y = ops.cast(ops.concat(parts, 1), 'float32')
  return ops.reshape(y, [...x.shape.slice(0, -1), N])
}

/** `dy W`, `[…, N] → […, K]` in float32: the gradient of a linear layer's input. */
export const inputGradient = (
  ops: DeviceOps,
  dy: DeviceTensor,
  weight: DeviceTensor,
  format: StoredFormat,
  K: number
): DeviceTensor => {
  const N = weight.shape[0]!
  const type = productType(format)
  const rows = ops.cast(asRows(ops, dy), type)
  const W = stored(ops, format, weight)
  const parts = weightTiles(format, [N, K]).map((tile) => {
    const columns = ops.slice(rows, [0, tile[0]], [rows.shape[0]!, tile[1]])
    return ops.cast(ops.matMul(columns, weightRows(ops, format, W, K, tile, type)), 'float32')
  })
  const dx = parts.reduce((a, b) => ops.elementwise('AddV2', a, b))
  return ops.reshape(dx, [...dy.shape.slice(0, -1), K])
}

/** `dyᵀ x`, `[N, K]` in float32: the gradient of a linear layer's weight. */
export const weightGradient = (ops: DeviceOps, dy: DeviceTensor, x: DeviceTensor): DeviceTensor => {
  const type = productType('float32')
  const [left, right] = [dy, x].map((t) => ops.cast(asRows(ops, t), type))
  return ops.cast(ops.matMul(left!, right!, { x: true }), 'float32')
}

/** Rows of a stored weight `[V, K]` at ids, `[…ids, K]` in float32. */
export const embeddingRows = (
  ops: DeviceOps,
  weight: DeviceTensor,
  ids: DeviceTensor,
  format: StoredFormat,
  K: number
): DeviceTensor => {
  const found = ops.gather(stored(ops, format, weight), ids) // ids are not reshaped: TensorFlow has int32 reshaped in host memory
  const rows = format === 'float32' ? found : dequantizeOnDevice(ops, format, asRows(ops, found), K, 'float32')
  return ops.reshape(rows, [...ids.shape, K])
}
