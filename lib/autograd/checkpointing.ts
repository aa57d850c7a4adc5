import type { Module } from '../module.js'
import { mapParams, namedParameters } from '../params.js'
import { tf } from '../tf.js'
import { customGradient, isTraced, vjp } from './tape.js'
import { captureTraining, trainingOptions } from './train-mode.js'

const tensorsIn = (tree: unknown): readonly tf.Tensor[] =>
  namedParameters(tree).flatMap(([, leaf]) => (leaf instanceof tf.Tensor ? [leaf] : []))

/** The tree with its tensors replaced by others, in order. */
const withTensors = <T>(tree: T, tensors: readonly tf.Tensor[]): T => {
  let next = 0
  return mapParams((leaf) => (leaf instanceof tf.Tensor ? tensors[next++]! : leaf))(tree)
}

type Layer = (...inputs: readonly unknown[]) => unknown

/** Runs a layer as one recorded operation that saves the layer's inputs only. */
const recomputed = (layer: Layer, params: unknown, inputs: readonly unknown[]): unknown => {
  const inputTensors = tensorsIn(inputs)
  const leaves = tensorsIn(params).filter(isTraced)
  const traced = inputTensors.map(isTraced)
  const differentiated = [...leaves, ...inputTensors.filter((_, i) => traced[i])]
  if (differentiated.length === 0) return layer(...inputs)
  const restored = captureTraining()
  let output: unknown
  customGradient({
    name: 'checkpointed',
    inputs: Object.fromEntries(differentiated.map((x, i) => [i, x])),
    forward: (save) => {
      save(inputTensors)
      return tf.tidy(() => {
        output = layer(...inputs)
        return tensorsIn(output) as tf.Tensor[]
      })
    },
    backward: (dys, saved) => {
      const xs = [...leaves, ...saved.filter((_, i) => traced[i])]
      const forward = () => restored(() => tensorsIn(layer(...withTensors(inputs, saved))))
      const { values, grads } = vjp(forward, xs, () => dys)
      tf.dispose([...values])
      return Object.fromEntries(xs.map((x, i) => [i, () => grads[i] ?? tf.zerosLike(x)]))
    }
  })
  return output
}

/**
 * The same layer with gradient checkpointing under `training({ checkpointing: true })`: only the layer's inputs are saved, and the layer
 * is computed a second time in the backward pass. Memory is needed for the inner states of one layer instead of all layers. Source: Chen et al. 2016; `torch.utils.checkpoint`.
 */
export const checkpointed = <P, F>(layer: Module<P, F>): Module<P, F> => ({
  ...layer,
  apply: (params, binding) => {
    const forward = layer.apply(params, binding)
    const run = (...inputs: readonly unknown[]) =>
      trainingOptions()?.checkpointing ? recomputed(forward as Layer, params, inputs) : (forward as Layer)(...inputs)
    return Object.assign(run, forward) as unknown as F
  },
  withChildren: (children) => checkpointed(layer.withChildren(children))
})
