import { tf } from './tf.js'

/**
 * The numbers of the tensor that `f` gives; it and all in between are freed. `tf.tidy(() => f().dataSync())` would look at each of
 * them, for a tensor among them: a minute for half a GB.
 */
export const numbersOf = (f: () => tf.Tensor): Float32Array | Int32Array => {
  const tensor = tf.tidy(f)
  try {
    return tensor.dataSync() as Float32Array | Int32Array
  } finally {
    tensor.dispose()
  }
}
