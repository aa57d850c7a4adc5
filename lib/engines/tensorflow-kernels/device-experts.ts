import { dequantizeOnDevice } from './device-dequantize.js'
import { productType, type StoredFormat } from './device-linear.js'
import { type DeviceOps, type DeviceTensor, typeOf } from './device-ops.js'

/**
 * Tensors of one shape in one tensor `[E, …]`, as float32 bits, and each again as a view of its memory. TensorFlow shares the memory of a slice along the
 * first axis whose start is a multiple of 64 bytes, and copies other slices.
 */
export const stackOnDevice = (ops: DeviceOps, tensors: readonly DeviceTensor[]): readonly DeviceTensor[] => {
  const stack = ops.concat(
    tensors.map((t) => ops.reshape(ops.bitcast(t, 'float32'), [1, ...t.shape])),
    0
  )
  const rest = tensors[0]!.shape.map(() => 0)
  const views = tensors.map((t, e) => {
    const bits = ops.reshape(ops.slice(stack, [e, ...rest], [1, ...t.shape]), t.shape)
    return ops.bitcast(bits, typeOf(t))
  })
  return [stack, ...views]
}

/**
 * `x[n] W[ids[n]]ᵀ`, `[n, K] → [n, N]` in float32, of weights `[E, N, …]` as `stackOnDevice` makes them and ids of n entries in any shape. The chosen
 * weights are copied: their bytes are read, written and read again.
 */
export const expertProduct = (
  ops: DeviceOps,
  x: DeviceTensor,
  stack: DeviceTensor,
  ids: DeviceTensor,
  format: StoredFormat
): DeviceTensor => {
  const [n, K] = x.shape as [number, number]
  const [, N, width] = stack.shape as [number, number, number]
  const type = productType(format)
  const chosen = ops.gather(stack, ids)
  const weights =
    format === 'float32' ? ops.cast(chosen, type) : dequantizeOnDevice(ops, format, ops.reshape(chosen, [n * N, width]), K, type)
  const y = ops.matMul(ops.cast(ops.reshape(x, [n, 1, K]), type), ops.reshape(weights, [n, N, K]), { y: true })
  return ops.reshape(ops.cast(y, 'float32'), [n, N])
}
