import { InternVLError, issue } from '../../lib/error.js'

type AnyFunction = (...args: never[]) => unknown

/** An owner of parameters that functions read. */
export interface Disposable {
  readonly isDisposed: () => boolean
  readonly dispose: () => void
}

/** Calls `dispose` at most once and remembers that it was called. */
export const disposeOnce = (dispose: () => void): Disposable => {
  let isDisposed = false
  return {
    isDisposed: () => isDisposed,
    dispose: () => {
      if (isDisposed) return
      isDisposed = true
      dispose()
    }
  }
}

/**
 * The function, and the functions that it carries as properties, with a check before each call: after `dispose` a call throws an
 * `InternVLError` with the tag `Disposed`, instead of the error of a disposed tensor somewhere inside.
 */
export const throwsWhenDisposed = <F extends AnyFunction>(f: F, { isDisposed }: Pick<Disposable, 'isDisposed'>): F => {
  const checked = (...args: never[]) => {
    if (isDisposed()) throw new InternVLError([issue('Disposed', 'The model was disposed; load the checkpoint again.')])
    return f(...args)
  }
  const properties = Object.entries(f).map(([name, property]) => [
    name,
    typeof property === 'function' ? throwsWhenDisposed(property as AnyFunction, { isDisposed }) : property
  ])
  return Object.assign(checked, Object.fromEntries(properties)) as F
}
