import { createRequire } from 'node:module'
import { dirname, join, sep } from 'node:path'
import { tf } from '../tf.js'

/** A backend with synchronous reads, such as `wasm` and `cpu`. */
interface SyncBackend {
  readSync(dataId: object): tf.TypedArray
  write(values: tf.TypedArray, shape: number[], dtype: tf.DataType): object
  disposeData(dataId: object, force?: boolean): boolean
}

const copy =
  (from: SyncBackend, to: SyncBackend) =>
  ({ dataId, shape, dtype }: tf.TensorInfo): tf.TensorInfo => ({
    dataId: to.write(from.readSync(dataId), shape, dtype),
    shape,
    dtype
  })

/** A kernel function that runs a kernel of the CPU backend on copies of its inputs: a record, or the array of `concat` and `einsum`. */
const runOnCpu =
  (cpu: SyncBackend, kernel: tf.KernelConfig): tf.KernelFunc =>
  ({ inputs, attrs, backend }) => {
    const target = backend as SyncBackend
    const copied = Object.entries(inputs).flatMap(([name, input]) => (input ? [[name, copy(target, cpu)(input)] as const] : []))
    const copies = Array.isArray(inputs) ? copied.map(([, input]) => input) : Object.fromEntries(copied)
    const result = kernel.kernelFunc({ inputs: copies as tf.NamedTensorInfoMap, attrs: attrs as tf.NamedAttrMap, backend: cpu })
    const outputs = [result].flat()
    const results = outputs.map(copy(cpu, target))
    for (const { dataId } of [...copied.map(([, input]) => input), ...outputs]) cpu.disposeData(dataId)
    return Array.isArray(result) ? results : (results[0] as tf.TensorInfo)
  }

/** Registers on `wasm` every kernel that only `cpu` has: Erf, Einsum, gradients of gather and convolution, … Returns their names. */
const registerFallbacks = (): readonly string[] => {
  const cpu = tf.engine().findBackend('cpu') as unknown as SyncBackend
  const missing = tf.getKernelsForBackend('cpu').filter(({ kernelName }) => !tf.getKernel(kernelName, 'wasm'))
  for (const kernel of missing) tf.registerKernel({ ...kernel, backendName: 'wasm', kernelFunc: runOnCpu(cpu, kernel) })
  return missing.map(({ kernelName }) => kernelName)
}

/** The version of the `cpu` backend, which is loaded with TensorFlow.js. */
export const loadCpu = (): string => tf.version_core

// Emscripten installs listeners that rethrow uncaught errors and print a page of its own source.
const withoutNewListeners = async <A>(action: () => Promise<A>): Promise<A> => {
  const events = ['uncaughtException', 'unhandledRejection'] as const
  const before = new Set(events.flatMap((event) => process.listeners(event as 'uncaughtException')))
  const result = await action()
  for (const event of events)
    for (const listener of process.listeners(event as 'uncaughtException'))
      if (!before.has(listener)) process.removeListener(event, listener)
  return result
}

/** Loads the `wasm` backend, with CPU kernels for the ops that it lacks. Returns its version. */
export const loadWasm = async (): Promise<string> => {
  const wasm = await import('@tensorflow/tfjs-backend-wasm')
  const main = createRequire(import.meta.url).resolve('@tensorflow/tfjs-backend-wasm')
  wasm.setWasmPaths(join(dirname(main), sep))
  registerFallbacks()
  if (!(await withoutNewListeners(() => tf.setBackend('wasm')))) throw new Error('WebAssembly did not start')
  return wasm.version_wasm
}
