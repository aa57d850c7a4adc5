import { customGradient, gradientSoFar, isRecording, isTraced, vjp } from '../autograd/tape.js'
import { ShapeError } from '../shape.js'
import { tf } from '../tf.js'
import { backwardRules } from './gradients.js'
import { hasKernel, type KernelInputs, runKernel } from './kernel.js'

const presentInputs = (inputs: KernelInputs): ReadonlyArray<readonly [string, tf.Tensor]> =>
  Object.entries(inputs).flatMap(([name, x]) => (x ? [[name, x] as const] : []))

/** Whether an input has no entries: kernels are for tensors with some, the composition defines the result of the others. */
const hasEmpty = (inputs: KernelInputs): boolean => {
  for (const name in inputs) if (inputs[name]?.size === 0) return true
  return false
}

/** Runs the kernel as one recorded operation. Only its inputs are saved; the backward pass computes the gradients from them. */
const differentiable = <T extends tf.Tensor | readonly tf.Tensor[]>(
  kernel: string,
  inputs: Readonly<Record<string, tf.Tensor>>,
  attributes: Readonly<Record<string, unknown>>,
  composition: (inputs: KernelInputs) => T
): T => {
  const names = Object.keys(inputs)
  const traced = names.filter((name) => isTraced(inputs[name]!))
  return customGradient({
    name: kernel,
    inputs,
    forward: (save) => {
      save(Object.values(inputs))
      return runKernel<T>(kernel, inputs, attributes)
    },
    backward: (dys, saved) => {
      const savedInputs: Record<string, tf.Tensor> = {}
      for (const [i, name] of names.entries()) savedInputs[name] = saved[i]!
      const sumOf = (name: string) => gradientSoFar(inputs[name]!)
      const gradients = backwardRules[kernel]?.(dys as [tf.Tensor], savedInputs, attributes, new Set(traced), sumOf)
      if (gradients) return gradients
      const xs = traced.map((name) => savedInputs[name]!)
      const { grads } = vjp(
        () => [composition(savedInputs)].flat() as tf.Tensor[],
        xs,
        () => dys
      )
      return Object.fromEntries(traced.map((name, i) => [name, () => grads[i] ?? tf.zerosLike(xs[i]!)]))
    }
  })
}

/**
 * Runs a composition; its plain operations refuse tensors that do not fit with errors of TensorFlow.js, which become a `ShapeError` with the
 * shapes of the inputs.
 */
const compose = <T, I extends KernelInputs>(kernel: string, inputs: I, composition: (inputs: I) => T): T => {
  try {
    return composition(inputs)
  } catch (error) {
    if (!(error instanceof Error) || error.name !== 'Error' || /memory|exhausted|allocat/i.test(error.message)) throw error
    const shapes = presentInputs(inputs).map(([name, x]) => `${name} ${x.dtype} [${x.shape?.join(', ')}]`)
    throw new ShapeError(`${kernel}: shapes must agree, got ${shapes.join(', ')}`, { cause: error })
  }
}

/**
 * A pure function with two implementations: the engine's kernel where one is registered, else a composition of plain ops, which every
 * engine has. Both give the same numbers and gradients. While a gradient is recorded the kernel still runs; the backward pass uses
 * `backwardRules`, or differentiates the composition on the saved inputs. Inputs that are `undefined` are absent.
 */
export const fused = <T extends tf.Tensor | readonly tf.Tensor[], I extends KernelInputs>(
  kernel: string,
  inputs: I,
  attributes: Readonly<Record<string, unknown>>,
  composition: (inputs: I) => T
): T => {
  if (!hasKernel(kernel) || hasEmpty(inputs)) return compose(kernel, inputs, composition)
  if (!isRecording()) return runKernel<T>(kernel, inputs, attributes)
  const present = presentInputs(inputs)
  if (!present.some(([, x]) => isTraced(x))) return runKernel<T>(kernel, inputs, attributes)
  return differentiable(kernel, Object.fromEntries(present), attributes, composition as (inputs: KernelInputs) => T)
}
