import * as tf from '@tensorflow/tfjs'

/** The only import of TensorFlow.js. */
export * as tf from '@tensorflow/tfjs'

/** Placeholder, replaced by the engine work: selects the CPU backend. */
export const selectEngine = async (): Promise<void> => {
  await tf.setBackend('cpu')
}
