/** The one door to TensorFlow.js: every other file says `import { tf } from '…/lib/tf.js'`. Which engine runs it: `engines/`. */
export * as tf from '@tensorflow/tfjs'
