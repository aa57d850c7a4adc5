import fc from 'fast-check'
import { kernelsInUse } from '../../../lib/engines/kernels/register.js'
import { type KernelName, kernels, parts } from '../../../lib/engines/kernels/schema.js'
import { runKernel } from '../../../lib/ops/kernel.js'
import { tf } from '../../../lib/tf.js'
import { randomOf, sampleCall, spoil } from '../../lib/engines/kernels/kernel-calls.js'
import { numbers } from '../awkward.js'
import { opCalls } from '../op-calls.js'
import { fuzzKind } from './fuzz-kind.js'

type Shape = readonly number[]
interface TensorSpec {
  readonly shape: Shape
  readonly dtype: 'float32' | 'int32'
}

type Input =
  | { readonly registry: number; readonly seed: number }
  | { readonly call: string; readonly tensors: readonly TensorSpec[]; readonly numbers: readonly number[] }

const size = fc.oneof({ weight: 4, arbitrary: fc.constantFrom(2, 4) }, fc.nat(9), fc.constantFrom(0, 1, 64, 65))
const spec: fc.Arbitrary<TensorSpec> = fc.record({
  shape: fc.array(size, { maxLength: 5 }),
  dtype: fc.oneof(
    { weight: 4, arbitrary: fc.constant('float32' as const) },
    { weight: 1, arbitrary: fc.constant('int32' as const) }
  )
})

/** One shape for all tensors, or a shape for each: equal shapes pass more checks. */
const specs = fc.oneof(
  fc.array(spec, { minLength: 4, maxLength: 4 }),
  spec.map((one) => Array<TensorSpec>(4).fill(one)),
  fc
    .tuple(spec, size)
    .map(([one, n]) => [one, ...Array<TensorSpec>(3).fill({ shape: [one.shape.at(-1) ?? n], dtype: 'float32' })])
)

const makeTensor = ({ shape, dtype }: TensorSpec): tf.Tensor => {
  const length = shape.reduce((a, b) => a * b, 1)
  return tf.tensor(
    Array.from({ length }, (_, i) => (dtype === 'int32' ? i % 3 : Math.sin(i))),
    [...shape],
    dtype
  )
}

const readAll = (result: unknown): void => {
  for (const y of [result].flat()) if (y instanceof tf.Tensor) y.dataSync()
}

const registryCall = (index: number, seed: number): boolean => {
  const found = new Set(kernelsInUse())
  const names = (Object.keys(kernels) as KernelName[]).filter(
    (name) => found.has(name) && kernels[name] && !/File|Upload|Read/.test(name)
  )
  if (names.length === 0) return false
  const random = randomOf(seed)
  const { kernel, inputs, attributes } = spoil(sampleCall(names[index % names.length]!, parts, random, -1), random)
  readAll(runKernel(kernel, inputs, attributes))
  return true
}

/** Calls of kernels with tensors and numbers of any shape, type and size, through the package's exports and through the registry. */
export const kernelKind = fuzzKind<Input>({
  name: 'kernel',
  arbitrary: fc.oneof(
    { weight: 2, arbitrary: fc.record({ call: fc.constantFrom(...Object.keys(opCalls)), tensors: specs, numbers: fc.tuple(numbers, numbers, numbers) }) },
    { weight: 1, arbitrary: fc.record({ registry: fc.nat(200), seed: fc.nat() }) }
  ), // biome-ignore format: one line a form
  run: async (input) =>
    tf.tidy(() => {
      if ('registry' in input) return registryCall(input.registry, input.seed)
      readAll(opCalls[input.call]!(input.tensors.map(makeTensor), input.numbers))
      return true
    })
})
