import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { tf } from '../tf.js'

/** An attribute of a TensorFlow op, as the addon takes it. Make one with `attr`. */
export interface OpAttr {
  readonly name: string
  readonly type: number
  readonly value: unknown
}

/** A tensor inside TensorFlow, of any of its types: `dtype` is a `TF_DataType`. Whoever holds one releases it. */
export interface Handle {
  readonly id: number
  readonly shape: number[]
  readonly dtype: number
}

/** The part of the addon (`tfjs_binding.node`) that is used here. */
interface Binding {
  readonly TF_Version: string
  isUsingGpuDevice(): boolean
  executeOp(name: string, attrs: readonly OpAttr[], inputs: readonly number[], numOutputs: number): Handle[]
  deleteTensor(id: number): void
}

/** The part of `NodeJSKernelBackend` of @tensorflow/tfjs-node-gpu that is used here. */
interface KernelBackend extends tf.KernelBackend {
  getInputTensorIds(tensors: readonly tf.TensorInfo[]): number[]
  createOutputTensor(handle: Handle): tf.Tensor
}
type KernelBackendClass = new (binding: Binding, packageName: string) => KernelBackend

/** Numbers of `TF_DataType`. Source: tensorflow/c/tf_datatype.h. */
export const tfType = {
  float32: 1,
  int32: 3,
  uint8: 4,
  int8: 6,
  string: 7,
  complex64: 8,
  int64: 9,
  bool: 10,
  bfloat16: 14,
  float16: 19
} as const

/** Makers of op attributes; a list is a list attribute. Numbers: `TF_AttrType` of tensorflow/c/tf_attrtype.h. */
export const attr = {
  string: (name: string, value: string | readonly string[]): OpAttr => ({ name, type: 0, value }),
  int: (name: string, value: number | readonly number[]): OpAttr => ({ name, type: 1, value }),
  float: (name: string, value: number | readonly number[]): OpAttr => ({ name, type: 2, value }),
  bool: (name: string, value: boolean | readonly boolean[]): OpAttr => ({ name, type: 3, value }),
  type: (name: string, value: keyof typeof tfType | readonly (keyof typeof tfType)[]): OpAttr => ({
    name,
    type: 4,
    value: typeof value === 'string' ? tfType[value] : value.map((v) => tfType[v])
  })
} as const

/** TensorFlow's ops themselves, past the five types and the 150 kernels of TensorFlow.js. */
export interface NativeBackend {
  /** Runs an op on tensors. It records no gradient: call it inside a kernel. */
  executeOp(name: string, attrs: readonly OpAttr[], inputs: readonly tf.TensorInfo[], numOutputs?: number): tf.Tensor[]
  /** Runs an op on handles, which may be of types that TensorFlow.js has not (bfloat16). Release what comes back, or make it a tensor. */
  run(name: string, attrs: readonly OpAttr[], inputs: readonly Handle['id'][], numOutputs?: number): Handle[]
  /** The handles behind tensors; they stay the tensors'. */
  handles(tensors: readonly tf.TensorInfo[]): number[]
  /** A tensor that owns the handle from now on. */
  tensor(handle: Handle): tf.Tensor
  release(...handles: readonly Handle[]): void
}

const here = dirname(fileURLToPath(import.meta.url))
const require = createRequire(import.meta.url)

/** The kernels' JavaScript: bundled beside this file in the published package, the devDependency's in a checkout. */
const loadKernels = (): KernelBackendClass => {
  const twin = join(here, 'tfjs-node.cjs')
  if (existsSync(twin)) return require(twin).NodeJSKernelBackend
  require('@tensorflow/tfjs-node-gpu/dist/register_all_kernels')
  return require('@tensorflow/tfjs-node-gpu/dist/nodejs_kernel_backend').NodeJSKernelBackend
}

// tfjs-node calls two functions that warn in Node 22 and are gone from Node 23.
const mendUtil = (): void => {
  const util = require('node:util') as Record<string, unknown>
  util.isNullOrUndefined = (x: unknown) => x === null || x === undefined
  util.isArray = Array.isArray
}

// TensorFlow's settings, unless the user has set them.
const presetTensorflow = (): void => {
  const { env } = process
  env.TF_CPP_MIN_LOG_LEVEL ??= '2' // its log is C++ on stderr; 2 leaves errors
  env.TF_FORCE_GPU_ALLOW_GROWTH ??= 'true' // else it takes the whole GPU
  env.NVIDIA_TF32_OVERRIDE ??= '0' // float32 means float32, as in PyTorch
}

const opsOf = (binding: Binding, backend: KernelBackend): NativeBackend => {
  const run: NativeBackend['run'] = (name, attrs, inputs, numOutputs = 1) => binding.executeOp(name, attrs, inputs, numOutputs)
  const handles: NativeBackend['handles'] = (tensors) => backend.getInputTensorIds(tensors)
  const tensor: NativeBackend['tensor'] = (handle) => backend.createOutputTensor(handle)
  return {
    run,
    handles,
    tensor,
    executeOp: (name, attrs, inputs, numOutputs) => run(name, attrs, handles(inputs), numOutputs).map(tensor),
    release: (...gone) => {
      for (const { id } of gone) binding.deleteTensor(id)
    }
  }
}

let loaded: { readonly binding: Binding; readonly ops: NativeBackend } | undefined

/** TensorFlow's ops once the native engine is loaded, else `undefined`. */
export const nativeBackend = (): NativeBackend | undefined => loaded?.ops

/**
 * Loads the addon of a finished engine folder and registers the backend `tensorflow`, once a process.
 * Throws what the dynamic linker says when a library does not load. TensorFlow reads its settings from the environment here.
 */
export const loadNative = (folder: string): { readonly version: string; readonly devices: readonly string[] } => {
  if (!loaded) {
    presetTensorflow()
    mendUtil()
    const binding: Binding = require(join(folder, 'tfjs_binding.node'))
    const registered = tf.engine().findBackend('tensorflow') as KernelBackend | null // by another copy of this module
    const backend = registered ?? new (loadKernels())(binding, 'internvl-tfjs')
    if (!registered) tf.registerBackend('tensorflow', () => backend, 3)
    loaded = { binding, ops: opsOf(binding, backend) }
  }
  const { binding } = loaded
  return { version: binding.TF_Version, devices: [binding.isUsingGpuDevice() ? 'GPU' : 'CPU'] }
}
