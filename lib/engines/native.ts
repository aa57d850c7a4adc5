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

/** A tensor inside TensorFlow, of any TensorFlow type: `dtype` is a `TF_DataType`. The caller that receives a handle releases it. */
export interface TensorHandle {
  readonly id: number
  readonly shape: number[]
  readonly dtype: number
}

/** The part of the addon (`tfjs_binding.node`) that is used here. */
interface Binding {
  readonly TF_Version: string
  isUsingGpuDevice(): boolean
  createTensor(shape: readonly number[], dtype: number, values: tf.TypedArray): number
  executeOp(name: string, attrs: readonly OpAttr[], inputs: readonly number[], numOutputs: number): TensorHandle[]
  deleteTensor(id: number): void
  /** The functions below are missing in addons that an earlier version compiled, see install/collectives-addon.ts. */
  readonly hasCollectives?: boolean
  enableCollectives(serverDef: Uint8Array, task: string): void
  reportError(message: string): void
  executeOpAsync(name: string, attrs: readonly OpAttr[], inputs: readonly number[], numOutputs: number): Promise<TensorHandle[]>
}

/** The part of `NodeJSKernelBackend` of @tensorflow/tfjs-node-gpu that is used here. */
interface KernelBackend extends tf.KernelBackend {
  readonly binding: Binding
  getInputTensorIds(tensors: readonly tf.TensorInfo[]): number[]
  createOutputTensor(handle: TensorHandle): tf.Tensor
}
type KernelBackendClass = new (binding: Binding, packageName: string) => KernelBackend

/** Values of `TF_DataType`. Source: tensorflow/c/tf_datatype.h. */
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

/** Builds op attributes; an array gives a list attribute. Types: `TF_AttrType` of tensorflow/c/tf_attrtype.h. */
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

/** Direct access to TensorFlow's ops, beyond the five types and the 150 kernels of TensorFlow.js. */
export interface NativeBackend {
  /** Runs an op on tensors. No gradient is recorded: call `executeOp` inside a kernel. */
  executeOp(name: string, attrs: readonly OpAttr[], inputs: readonly tf.TensorInfo[], numOutputs?: number): tf.Tensor[]
  /** Runs an op on handles, also of types that TensorFlow.js lacks (bfloat16). Release the outputs, or turn them into tensors. */
  run(name: string, attrs: readonly OpAttr[], inputs: readonly TensorHandle['id'][], numOutputs?: number): TensorHandle[]
  /** `run` on another thread, for ops that wait for other machines. The inputs may be disposed meanwhile. */
  runAsync(
    name: string,
    attrs: readonly OpAttr[],
    inputs: readonly TensorHandle['id'][],
    numOutputs?: number
  ): Promise<TensorHandle[]>
  /** The handle ids of tensors. The tensors keep ownership. */
  handles(tensors: readonly tf.TensorInfo[]): number[]
  /** A new handle of float32, uint8 or int32 values. The addon copies them to the device, but int32 stays in host memory, as TensorFlow's ops expect. */
  create(shape: readonly number[], values: Float32Array | Int32Array | Uint8Array): TensorHandle
  /** A tensor that takes ownership of the handle. */
  tensor(handle: TensorHandle): tf.Tensor
  release(...handles: readonly TensorHandle[]): void
  /** Whether this build of TensorFlow and of the addon has collective operations; `undefined` for an addon of an earlier version. */
  readonly hasCollectives: boolean | undefined
  /**
   * Makes this process the task `/job:worker/replica:0/task:…/` of the cluster in the bytes of a `ServerDef`; blocks until the other tasks have connected. Throws if a
   * tensor exists already, or if the server cannot start.
   */
  enableCollectives(serverDef: Uint8Array, task: string): void
  /** Tells the other tasks of the cluster why this one ends. */
  reportError(message: string): void
}

const thisFolder = dirname(fileURLToPath(import.meta.url))
const require = createRequire(import.meta.url)

/** The backend class of tfjs-node with its kernels: bundled beside this file in the published package, the devDependency in a checkout. */
const loadKernelBackend = (): KernelBackendClass => {
  const bundled = join(thisFolder, 'tfjs-node.cjs')
  if (existsSync(bundled)) return require(bundled).NodeJSKernelBackend
  require('@tensorflow/tfjs-node-gpu/dist/register_all_kernels')
  return require('@tensorflow/tfjs-node-gpu/dist/nodejs_kernel_backend').NodeJSKernelBackend
}

// tfjs-node calls two functions that print warnings in Node 22 and do not exist from Node 23 on
const restoreNodeUtil = (): void => {
  const util = require('node:util') as Record<string, unknown>
  util.isNullOrUndefined = (x: unknown) => x === null || x === undefined
  util.isArray = Array.isArray
}

// Defaults for TensorFlow's settings that the user has not set. In a worker thread, `environment.node` passes them on to TensorFlow.
const setTensorflowDefaults = (): void => {
  const { env } = process
  env.TF_CPP_MIN_LOG_LEVEL ??= '2' // TensorFlow logs to stderr; level 2 prints errors only
  env.TF_FORCE_GPU_ALLOW_GROWTH ??= 'true' // otherwise TensorFlow reserves all GPU memory
  env.NVIDIA_TF32_OVERRIDE ??= '0' // float32 means float32, as in PyTorch
}

const nativeOps = (backend: KernelBackend): NativeBackend => {
  const { binding } = backend
  const run: NativeBackend['run'] = (name, attrs, inputs, numOutputs = 1) => binding.executeOp(name, attrs, inputs, numOutputs)
  const handles: NativeBackend['handles'] = (tensors) => backend.getInputTensorIds(tensors)
  const tensor: NativeBackend['tensor'] = (handle) => backend.createOutputTensor(handle)
  const create: NativeBackend['create'] = (shape, values) => {
    const dtype = values instanceof Float32Array ? tfType.float32 : values instanceof Int32Array ? tfType.int32 : tfType.uint8
    return { id: binding.createTensor(shape, dtype, values), shape: [...shape], dtype }
  }
  return {
    run,
    runAsync: (name, attrs, inputs, numOutputs = 1) => binding.executeOpAsync(name, attrs, inputs, numOutputs),
    handles,
    create,
    tensor,
    executeOp: (name, attrs, inputs, numOutputs) => run(name, attrs, handles(inputs), numOutputs).map(tensor),
    release: (...released) => {
      for (const { id } of released) binding.deleteTensor(id)
    },
    hasCollectives: binding.hasCollectives,
    enableCollectives: (serverDef, task) => binding.enableCollectives(serverDef, task),
    reportError: (message) => binding.reportError(message)
  }
}

/** The backend in TensorFlow.js's registry, which owns the loaded addon. */
const registeredBackend = (): KernelBackend | undefined =>
  (tf.engine().findBackend('tensorflow') as KernelBackend | null) ?? undefined

/** TensorFlow's ops once the native engine is loaded, else `undefined`. */
export const nativeBackend = (): NativeBackend | undefined => {
  const backend = registeredBackend()
  return backend && nativeOps(backend)
}

const registerBackend = (folder: string): KernelBackend => {
  setTensorflowDefaults()
  restoreNodeUtil()
  const environment = join(folder, 'environment.node')
  if (existsSync(environment)) require(environment) // engines of an earlier setup have none
  const binding: Binding = require(join(folder, 'tfjs_binding.node'))
  const backend = new (loadKernelBackend())(binding, 'internvl-tfjs')
  tf.registerBackend('tensorflow', () => backend, 3)
  return backend
}

/**
 * Loads the addon of an engine folder and registers the backend `tensorflow`, once for the process. TensorFlow reads its environment
 * variables at this time. Throws the message of the dynamic linker where a library does not load.
 */
export const loadNative = (folder: string): { readonly version: string; readonly devices: readonly string[] } => {
  const { binding } = registeredBackend() ?? registerBackend(folder)
  return { version: binding.TF_Version, devices: [binding.isUsingGpuDevice() ? 'GPU' : 'CPU'] }
}
