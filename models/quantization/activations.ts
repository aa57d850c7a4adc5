import { withKernelSettings } from '../../lib/engines/kernels/settings.js'
import { deviceHalfType, withComputeTypes } from '../../lib/engines/tensorflow-kernels/compute-type.js'
import { usesTensorflowOps } from '../../lib/ops/kernel.js'
import type { Activations } from './precision.js'

type AnyFunction = (...args: never[]) => unknown

/** `f`, and the functions that it carries as properties, each of whose calls runs in `scope`. The functions must be synchronous. */
const scoped = <F extends AnyFunction>(f: F, scope: <A>(run: () => A) => A): F => {
  const call = (...args: never[]) => scope(() => f(...args))
  const properties = Object.entries(f).map(([name, property]) => [
    name,
    typeof property === 'function' ? scoped(property as AnyFunction, scope) : property
  ])
  return Object.assign(call, Object.fromEntries(properties)) as F
}

/**
 * `f`, and the functions that it carries as properties, with the given type of activations for the time of each call. The functions
 * must be synchronous. On TensorFlow's ops a model with packed weights has attention in 16 bits too.
 */
export const withActivations = <F extends AnyFunction>(f: F, activations: Activations = 'auto', hasPackedWeights = false): F => {
  if (usesTensorflowOps()) {
    const type = activations === 'auto' ? deviceHalfType() : activations
    const types = { packed: type, attention: hasPackedWeights ? type : 'float32' } as const
    return scoped(f, (run) => withComputeTypes(types, run))
  }
  return activations === 'float32' ? scoped(f, (run) => withKernelSettings({ float32Activations: true }, run)) : f
}
