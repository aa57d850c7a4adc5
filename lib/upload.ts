import { type StoredDtype, toFloat32 } from './dtype.js'
import { attr, nativeBackend } from './engines/native.js'
import { tf } from './tf.js'

/** Halves widen inside TensorFlow, on all cores: two stored numbers travel as one int32. */
const widen = (bytes: Uint8Array, stored: 'bfloat16' | 'float16', shape: readonly number[]): tf.Tensor | undefined => {
  const native = nativeBackend()
  if (!native || bytes.byteLength % 4 !== 0 || bytes.byteOffset % 4 !== 0 || tf.getBackend() !== 'tensorflow') return undefined
  return tf.tidy(() => {
    const words = tf.tensor1d(new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4), 'int32')
    const [halves] = native.run('Bitcast', [attr.type('T', 'int32'), attr.type('type', stored)], native.handles([words]))
    const cast = [attr.type('SrcT', stored), attr.type('DstT', 'float32'), attr.bool('Truncate', false)]
    const [floats] = native.run('Cast', cast, [halves!.id])
    native.release(halves!)
    return native.tensor(floats!).reshape([...shape])
  })
}

/**
 * A float32 tensor of stored bytes; the caller never writes to `bytes` again. bf16 and f16 widen exactly.
 * The engine's own copy is made here, so that the bytes can be collected while the next tensor is read.
 */
export const uploadTensor = (bytes: Uint8Array, dtype: StoredDtype, shape: readonly number[]): tf.Tensor => {
  const half = dtype === 'BF16' ? 'bfloat16' : dtype === 'F16' ? 'float16' : undefined
  const widened = half && widen(bytes, half, shape)
  if (widened) return widened
  const tensor = tf.tensor(toFloat32(bytes, dtype), [...shape], 'float32')
  if (tf.getBackend() === 'tensorflow') nativeBackend()?.handles([tensor])
  return tensor
}
