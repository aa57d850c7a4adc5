import { createRequire } from 'node:module'

/** The one door to TensorFlow.js: every other file says `import { tf } from '…/lib/tf.js'`. Which engine runs it: `engines/`. */
export * as tf from '@tensorflow/tfjs-core'
export type * from '@tensorflow/tfjs-core/dist/public/chained_ops/register_all_chained_ops.js'

// The union package registers the cpu engine, the gradients and the chained ops (`x.add(y)`). Names and types come from the core:
// those of the union's other parts do not check in every project, so it is required, not imported.
createRequire(import.meta.url)('@tensorflow/tfjs')
