import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { ShapeError } from '../../shape.js'
import { tf } from '../../tf.js'
import { forceSetupHint } from '../install/hints.js'
import { attr, type NativeBackend } from '../native.js'
import { type Kernel, type KernelName, kernels, parts, schemaVersion } from './schema.js'
import { type Library, useSettingsOf } from './settings.js'
import { type Attributes, compileSignature, enumNumber, type Inputs, newAxes } from './signature.js'

const require = createRequire(import.meta.url)

/** The number of a named activation in the kernels, 0 without a name, NaN for an unknown one. */
export const activationNumber = (name: unknown = 'none'): number => enumNumber('Activation', name) ?? Number.NaN

/** Names of the registered kernels that the present engine has. */
export const kernelsInUse = (): readonly string[] => Object.keys(kernels).filter((name) => tf.getKernel(name, tf.getBackend()))

const typesOf = (tensors: readonly tf.TensorInfo[]) =>
  attr.type(
    'T',
    tensors.map(({ dtype }) => (dtype === 'int32' ? 'int32' : 'float32'))
  )

/** Inputs and attributes of one part of a decoder layer. */
interface FixedPart {
  readonly inputs: Inputs
  readonly attributes: Attributes
}

/** Weights and parameters of a fused decoder, the same in all steps, see lib/nn/fusion/fused-decoder.ts. */
interface FixedDecoder {
  readonly layers: readonly { readonly attention: FixedPart; readonly mlp: FixedPart }[]
  readonly norm: { readonly weight: tf.TensorInfo; readonly eps: number }
}

const attentionWeights = compileSignature('DecoderLayers', parts.AttentionWeights)
const mlpWeights = compileSignature('DecoderLayers', parts.MlpWeights)

/** Parameters and tensors of all layers, in the order in which DecoderLayers reads them. Throws a `ShapeError`. */
const collectFixed = ({ layers, norm }: FixedDecoder) => {
  const values = new Float64Array(layers.length * (attentionWeights.numValues + mlpWeights.numValues))
  const tensors: tf.TensorInfo[] = []
  let at = 0
  for (const { attention, mlp } of layers) {
    at = attentionWeights.write(attention.inputs, attention.attributes, values, at, tensors, newAxes())
    at = mlpWeights.write(mlp.inputs, mlp.attributes, values, at, tensors, newAxes())
  }
  tensors.push(norm.weight)
  return { values, tensors }
}

/** Numbers per tensor address, see cpu/operator/reader.h. */
const addressSize = 5

/**
 * The fixed values of a fused decoder: parameters of all layers, the number of tensors, and the address of each. They are computed once
 * per decoder, and again if a tensor has moved to another handle.
 */
const fixedDecoderValues = (native: NativeBackend, memory: Float64Array) => {
  const cache = new WeakMap<
    object,
    { readonly tensors: readonly tf.TensorInfo[]; readonly handles: readonly number[]; readonly values: Float64Array }
  >()
  return (decoder: FixedDecoder): Float64Array => {
    const cached = cache.get(decoder.layers)
    const fixed = cached ? undefined : collectFixed(decoder)
    const tensors = cached?.tensors ?? fixed!.tensors
    const handles = native.handles(tensors)
    if (cached?.handles.every((handle, i) => handle === handles[i])) return cached.values
    if (tensors.length * addressSize > memory.length)
      throw new ShapeError(`DecoderLayers: too many layers (${decoder.layers.length})`)
    for (const done of native.executeOp('InternvlTensorAddresses', [typesOf(tensors)], tensors)) done.dispose()
    const addresses = memory.subarray(0, addressSize * tensors.length)
    const values = Float64Array.from([...(fixed ?? collectFixed(decoder)).values, tensors.length, ...addresses])
    cache.set(decoder.layers, { tensors, handles, values })
    return values
  }
}

/** Prepares the calls of a kernel: the function that TensorFlow.js's registry calls. */
const kernelFunction = (
  name: KernelName,
  native: NativeBackend,
  memory: Float64Array,
  fixedValues: (decoder: FixedDecoder) => Float64Array
): tf.KernelFunc => {
  const kernel: Kernel = kernels[name]
  const kernelSignature = compileSignature(name, kernel)
  const part = kernel.part && compileSignature(name, parts[kernel.part])
  const named = new Set(Object.keys({ ...kernel.inputs, ...(kernel.part ? parts[kernel.part].inputs : {}) }))
  const operator = `Internvl${kernel.operator ?? name}`
  const outputs = Object.keys(kernel.outputs).length
  const { groupSize } = kernel
  const axes = newAxes()

  const further = (inputs: Inputs, attributes: Attributes): readonly tf.TensorInfo[] => {
    const caches = attributes.caches as readonly tf.TensorInfo[] | undefined
    if (name === 'DecoderLayers') {
      const { layers = [], numLayers } = attributes as unknown as Partial<FixedDecoder> & Attributes
      if (numLayers === 0 || layers.length !== numLayers || caches?.length !== 2 * layers.length)
        throw new ShapeError(`${name}: expected numLayers = ${numLayers} layers and twice as many caches, got ${layers.length} layers and ${caches?.length} caches`) // biome-ignore format: one line
    }
    const all = caches ?? Object.entries(inputs).flatMap(([input, x]) => (x && !named.has(input) ? [x] : []))
    if (groupSize && (all.length === 0 || all.length % groupSize > 0))
      throw new ShapeError(`${name}: expected groups of ${groupSize} inputs, got ${all.length}`)
    const expected = (attributes.cacheFormat ?? 'float32') === 'float32' ? 'float32' : 'int32'
    const wrong = all.find(({ dtype }) => dtype !== expected)
    if (wrong) throw new ShapeError(`${name}: expected ${expected} inputs, got ${wrong.dtype} [${wrong.shape.join(', ')}]`)
    return all
  }

  /** Runs the operator. Its own errors, such as a label out of range or unequal axes of a decoder's caches, are shape errors. */
  const execute = (tensors: readonly tf.TensorInfo[], groups?: number): tf.Tensor[] => {
    const attributes = groups === undefined ? [typesOf(tensors)] : [typesOf(tensors), attr.int('N', groups)]
    try {
      return native.executeOp(operator, attributes, tensors, outputs * (groups ?? 1))
    } catch (error) {
      const [, message] = new RegExp(`${operator}: (.*)`).exec(String(error)) ?? []
      throw message ? new ShapeError(`${name}: ${message}`) : error
    }
  }

  return ({ inputs: given, attrs }) => {
    const [inputs, attributes] = [given as Inputs, (attrs ?? {}) as Attributes]
    const tensors: tf.TensorInfo[] = []
    axes.reset()
    let end = kernelSignature.write(inputs, attributes, memory, 0, tensors, axes) // the operator reads the values before anything else runs
    if (part) end = part.write(inputs, attributes, memory, end, tensors, axes)
    const more = kernel.variadic ? further(inputs, attributes) : []
    if (kernel.variadic) tensors.push(...more)
    else
      for (const input in inputs)
        if (inputs[input] && !named.has(input)) throw new ShapeError(`${name}: no input is named ${input}`)
    if (name === 'DecoderLayers') {
      const before = memory.slice(0, end)
      const fixed = fixedValues(attributes as unknown as FixedDecoder)
      if (end + fixed.length > memory.length) throw new ShapeError(`${name}: too many layers`)
      memory.set(before)
      memory.set(fixed, end)
    }
    if (groupSize) return execute(tensors, more.length / groupSize)
    const results = execute(tensors)
    return outputs > 1 ? results : results[0]!
  }
}

/** The library at a path. Throws if it was compiled from another schema of parameters. */
export const openLibrary = (path: string): Library => {
  const library = require(path) as Library
  if (library.version !== schemaVersion)
    throw new Error(
      `${path} was compiled for version ${library.version ?? 'unknown'} of the kernel parameters, this package needs ${schemaVersion}; compile the kernels again with \`${forceSetupHint}\``
    )
  return library
}

/**
 * Loads the compiled kernels, if the library exists, and registers them with TensorFlow.js for the CPU of the native engine. Returns
 * whether the library exists. Throws if it was compiled from another schema of parameters.
 */
export const loadKernels = (library: string, native: NativeBackend): boolean => {
  if (!existsSync(library)) return false
  if (tf.getKernel('Linear', 'tensorflow')) return true
  const opened = openLibrary(library)
  useSettingsOf(opened)
  const memory = opened.parameters
  const fixedValues = fixedDecoderValues(native, memory)
  for (const name of Object.keys(kernels) as KernelName[])
    tf.registerKernel({
      kernelName: name,
      backendName: 'tensorflow',
      kernelFunc: kernelFunction(name, native, memory, fixedValues)
    })
  return true
}
