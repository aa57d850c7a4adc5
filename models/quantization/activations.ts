import { withKernelSettings } from '../../lib/engines/kernels/settings.js'
import { deviceHalfType, withComputeTypes } from '../../lib/engines/tensorflow-kernels/compute-type.js'
import type { HalfType } from '../../lib/engines/tensorflow-kernels/device-ops.js'
import { usesTensorflowOps } from '../../lib/ops/kernel.js'
import { namedParameters } from '../../lib/params.js'
import type { Activations } from './precision.js'
import { hasPackedWeights } from './quantized-keys.js'

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
 * The type of products with the packed weights of a parameter tree on TensorFlow's ops. `auto`: float16 where weights are in float16, as in PyTorch, else the
 * type of the device.
 */
export const packedProductType = (params: unknown, activations: Activations = 'auto'): 'float32' | HalfType => {
  if (activations !== 'auto') return activations
  return namedParameters(params).some(([key]) => key.endsWith('.f16')) ? 'float16' : deviceHalfType()
}

/**
 * `f`, and the functions that it carries as properties, with the given type of activations for the time of each call. The functions
 * must be synchronous. On TensorFlow's ops a model whose `params` have packed weights has attention in 16 bits too.
 */
export const withActivations = <F extends AnyFunction>(f: F, activations: Activations = 'auto', params: unknown = {}): F => {
  if (usesTensorflowOps()) {
    const type = packedProductType(params, activations)
    const types = { packed: type, attention: hasPackedWeights(params) ? type : 'float32' } as const
    return scoped(f, (run) => withComputeTypes(types, run))
  }
  return activations === 'float32' ? scoped(f, (run) => withKernelSettings({ float32Activations: true }, run)) : f
}
