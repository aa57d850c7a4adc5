import type { Module } from '../module.js'
import { mapParams, namedParameters } from '../params.js'
import { tf } from '../tf.js'
import { isTraced, operation, pullback } from './tape.js'
import { rememberTraining, trainingOptions } from './train-mode.js'

const tensorsIn = (tree: unknown): readonly tf.Tensor[] =>
  namedParameters(tree).flatMap(([, leaf]) => (leaf instanceof tf.Tensor ? [leaf] : []))

/** The tree with other tensors in the place of its own, in order. */
const withTensors = <T>(tree: T, tensors: readonly tf.Tensor[]): T => {
  let next = 0
  return mapParams((leaf) => (leaf instanceof tf.Tensor ? tensors[next++]! : leaf))(tree)
}

type Layer = (...inputs: readonly unknown[]) => unknown

/** Runs a layer as one operation that keeps its inputs alone. */
const recomputed = (layer: Layer, params: unknown, inputs: readonly unknown[]): unknown => {
  const given = tensorsIn(inputs)
  const leaves = tensorsIn(params).filter(isTraced)
  const traced = given.map(isTraced)
  const differentiated = [...leaves, ...given.filter((_, i) => traced[i])]
  if (differentiated.length === 0) return layer(...inputs)
  const again = rememberTraining()
  let output: unknown
  operation({
    inputs: Object.fromEntries(differentiated.map((x, i) => [i, x])),
    forward: (save) => {
      save(given)
      output = layer(...inputs)
      return tensorsIn(output)
    },
    backward: (dys, saved) => {
      const xs = [...leaves, ...saved.filter((_, i) => traced[i])]
      const forward = () => again(() => tensorsIn(layer(...withTensors(inputs, saved))))
      const { values, grads } = pullback(forward, xs, () => dys)
      tf.dispose([...values])
      return Object.fromEntries(xs.map((x, i) => [i, () => grads[i] ?? tf.zerosLike(x)]))
    }
  })
  return output
}

/**
 * The same layer, which under `training({ checkpointing: true })` keeps only what goes into it, and is computed a second time on
 * the way back: memory for one layer's inner states instead of all layers'. Source: Chen et al. 2016; `torch.utils.checkpoint`.
 */
export const checkpointed = <P, F>(layer: Module<P, F>): Module<P, F> => ({
  ...layer,
  apply: (params) => {
    const forward = layer.apply(params)
    const run = (...inputs: readonly unknown[]) =>
      trainingOptions()?.checkpointing ? recomputed(forward as Layer, params, inputs) : (forward as Layer)(...inputs)
    return Object.assign(run, forward) as unknown as F
  }
})
