import { createRequire } from 'node:module'
import { engine } from '@tensorflow/tfjs-core'

/** TensorFlow.js for the whole library: every other file imports `tf` from this module. `engines/` selects the backend. */
export * as tf from '@tensorflow/tfjs-core'
export type * from '@tensorflow/tfjs-core/dist/public/chained_ops/register_all_chained_ops.js'

// The package @tensorflow/tfjs registers the cpu backend, the gradients and the chained ops (`x.add(y)`). The package is required, not
// imported, because the types of its other parts do not compile in every project; names and types come from tfjs-core.
createRequire(import.meta.url)('@tensorflow/tfjs')

// At its first operation the cpu backend prints a hint to install tfjs-node, which does not apply: engines/ selects the engine.
// TensorFlow.js may create the backend again, so the flag is fixed for all instances.
const cpu = engine().findBackend('cpu')
Object.assign(cpu, { firstUse: false })
Object.defineProperty(Object.getPrototypeOf(cpu), 'firstUse', { get: () => false, set: () => undefined })
