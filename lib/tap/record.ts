import { tf } from '../tf.js'
import type { PathPattern } from './path-pattern.js'
import type { Tap, Taps } from './tap.js'

/** Outputs that taps have collected. The caller owns the tensors. */
export interface Recorder {
  /** The taps that record, for `tap`. */
  readonly taps: Taps
  /** The recorded outputs of each path, one tensor for each call of the module, in order. */
  readonly outputs: Readonly<Record<string, readonly tf.Tensor[]>>
  /** The last output of the module at a path. Throws a `RangeError` if the module has not run. */
  readonly last: (path: string) => tf.Tensor
  /** Disposes the recorded outputs; the recorder may record again. */
  readonly dispose: () => void
}

/**
 * Collects the outputs of the modules that the patterns match:
 *
 * `const recorder = record(['model.language_model.layers.*'])`, then `tap(module, recorder)` and a forward, then `recorder.outputs`.
 */
export const record = (paths: readonly PathPattern[]): Recorder => {
  const outputs: Record<string, tf.Tensor[]> = {}
  return {
    taps: paths.map((pattern): readonly [PathPattern, Tap] => [
      pattern,
      (y, { path }) => {
        outputs[path] = [...(outputs[path] ?? []), tf.keep(y.clone())] // the model may dispose y itself
        return y
      }
    ]),
    outputs,
    last: (path) => {
      const output = outputs[path]?.at(-1)
      if (output) return output
      throw new RangeError(`record: ${path}: nothing recorded; recorded paths: ${Object.keys(outputs).join(', ') || 'none'}`)
    },
    dispose: () => {
      for (const path of Object.keys(outputs)) {
        tf.dispose(outputs[path]!)
        delete outputs[path]
      }
    }
  }
}
