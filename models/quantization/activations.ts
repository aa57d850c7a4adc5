import { withKernelSettings } from '../../lib/engines/kernels/settings.js'
import type { Activations } from './precision.js'

type AnyFunction = (...args: never[]) => unknown

/**
 * `f`, and the functions that it carries as properties, with the given type of activations for the time of each call. The functions
 * must be synchronous.
 */
export const withActivations = <F extends AnyFunction>(f: F, activations: Activations = 'auto'): F => {
  if (activations === 'auto') return f
  const scoped = (...args: never[]) => withKernelSettings({ float32Activations: true }, () => f(...args))
  const properties = Object.entries(f).map(([name, property]) => [
    name,
    typeof property === 'function' ? withActivations(property as AnyFunction, activations) : property
  ])
  return Object.assign(scoped, Object.fromEntries(properties)) as F
}
