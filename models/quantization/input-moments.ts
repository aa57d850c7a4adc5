import type { Module } from '../../lib/module.js'
import { tap } from '../../lib/tap/tap.js'
import { tf } from '../../lib/tf.js'

/** Means of `x xᵀ` over the inputs `x` of linear layers, `[K, K]`, by path of the layer; layers with the same input share one tensor. */
export interface InputMoments {
  readonly of: (path: string) => tf.Tensor2D | undefined
  readonly dispose: () => void
}

/** The linear layers with the paths `layers`, and forwards through them. */
export interface MomentsOptions {
  readonly module: Module
  readonly params: unknown
  readonly layers: readonly string[]
  /** Other modules, whose outputs are collected: the norm before a head that has the embeddings' weights. */
  readonly outputsOf?: readonly string[]
  /** Token ids of the forwards. */
  readonly windows: readonly (readonly number[])[]
  /** Called after each forward. */
  readonly onWindow?: () => void | Promise<void>
}

/**
 * Runs the model on texts and collects the second moments of the inputs of some of its linear layers. Linear layers that one forward calls
 * with the same tensor, such as q, k and v, share their moments. A layer that does not run has none.
 */
export const inputMoments = async (options: MomentsOptions): Promise<InputMoments> => {
  const { module, params, layers, outputsOf = [], windows, onWindow } = options
  const sums = new Map<string, tf.Tensor2D>()
  const counts = new Map<string, number>()
  const owners = new Map<string, string>() // path of the layer that collects the moments of a layer
  let pathOfInput = new Map<number, string>()
  const collect = (path: string, x: tf.Tensor): void => {
    const owner = owners.get(path) ?? pathOfInput.get(x.id) ?? path
    owners.set(path, owner)
    pathOfInput.set(x.id, owner)
    if (owner !== path) return
    const rows = x.reshape<tf.Tensor2D>([-1, x.shape.at(-1)!])
    const product = tf.matMul(rows, rows, true, false) as tf.Tensor2D
    const before = sums.get(path)
    sums.set(path, tf.keep(before ? before.add<tf.Tensor2D>(product) : product))
    before?.dispose()
    counts.set(path, (counts.get(path) ?? 0) + rows.shape[0])
  }
  const taps = layers.map((path) => {
    const read = (y: tf.Tensor, { inputs: [x] }: { readonly inputs: readonly unknown[] }): tf.Tensor => {
      if (x instanceof tf.Tensor) collect(path, x)
      return y
    }
    return [path, read] as const
  })
  const outputTaps = outputsOf.map((path) => {
    const read = (y: tf.Tensor): tf.Tensor => {
      collect(path, y)
      return y
    }
    return [path, read] as const
  })
  const forward = tap(module, [...taps, ...outputTaps]).apply(params)
  for (const ids of windows) {
    pathOfInput = new Map()
    const inputIds = tf.tensor2d([[...ids]], undefined, 'int32')
    tf.dispose([inputIds, forward({ inputIds }, { logitsToKeep: 1 })])
    await onWindow?.()
  }
  const means = new Map<string, tf.Tensor2D>()
  for (const [path, sum] of sums) {
    means.set(
      path,
      tf.tidy(() => sum.div<tf.Tensor2D>(counts.get(path)!))
    )
    sum.dispose()
  }
  return {
    of: (path) => means.get(owners.get(path) ?? path),
    dispose: () => tf.dispose([...means.values()])
  }
}
