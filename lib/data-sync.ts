import { tf } from './tf.js'

/**
 * The data of the tensor that `f` returns; every tensor of `f` is disposed. `tf.tidy(() => f().dataSync())` would search the numbers for
 * tensors one by one, which takes a minute for half a GB.
 */
export const tidyDataSync = (f: () => tf.Tensor): Float32Array | Int32Array => {
  const tensor = tf.tidy(f)
  try {
    return tensor.dataSync() as Float32Array | Int32Array
  } finally {
    tensor.dispose()
  }
}
