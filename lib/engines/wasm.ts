import { createRequire } from 'node:module'
import { dirname, join, sep } from 'node:path'
import { tf } from '../tf.js'

/** A backend whose values can be read at once, as `wasm`'s and `cpu`'s can. */
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

/** A kernel of the CPU backend, run for another backend on copies of its inputs (a record, or the array of `concat` and `einsum`). */
const viaCpu =
  (cpu: SyncBackend, kernel: tf.KernelConfig): tf.KernelFunc =>
  ({ inputs, attrs, backend }) => {
    const own = backend as SyncBackend
    const given = Object.entries(inputs).flatMap(([name, input]) => (input ? [[name, copy(own, cpu)(input)] as const] : []))
    const copies = Array.isArray(inputs) ? given.map(([, input]) => input) : Object.fromEntries(given)
    const result = kernel.kernelFunc({ inputs: copies as tf.NamedTensorInfoMap, attrs: attrs as tf.NamedAttrMap, backend: cpu })
    const outputs = [result].flat()
    const mine = outputs.map(copy(cpu, own))
    for (const { dataId } of [...given.map(([, input]) => input), ...outputs]) cpu.disposeData(dataId)
    return Array.isArray(result) ? mine : (mine[0] as tf.TensorInfo)
  }

/** Gives `wasm` every kernel that only `cpu` has (Erf, Einsum, gradients of gathering and of convolution, …), and says which. */
export const registerFallbacks = (): readonly string[] => {
  const cpu = tf.engine().findBackend('cpu') as unknown as SyncBackend
  const missing = tf.getKernelsForBackend('cpu').filter(({ kernelName }) => !tf.getKernel(kernelName, 'wasm'))
  for (const kernel of missing) tf.registerKernel({ ...kernel, backendName: 'wasm', kernelFunc: viaCpu(cpu, kernel) })
  return missing.map(({ kernelName }) => kernelName)
}

/** Loads `cpu`, without its advice to install another backend; the version. */
export const loadCpu = (): string => {
  Object.assign(tf.engine().findBackend('cpu'), { firstUse: false })
  return tf.version_core
}

// Emscripten listens for uncaught errors only to throw them again, under a page of its own source.
const withoutNewListeners = async <A>(action: () => Promise<A>): Promise<A> => {
  const events = ['uncaughtException', 'unhandledRejection'] as const
  const before = new Set(events.flatMap((event) => process.listeners(event as 'uncaughtException')))
  const result = await action()
  for (const event of events)
    for (const listener of process.listeners(event as 'uncaughtException'))
      if (!before.has(listener)) process.removeListener(event, listener)
  return result
}

/** Loads `wasm` with the binaries of its own package and the kernels that it lacks; the version. */
export const loadWasm = async (): Promise<string> => {
  const wasm = await import('@tensorflow/tfjs-backend-wasm')
  loadCpu()
  const main = createRequire(import.meta.url).resolve('@tensorflow/tfjs-backend-wasm')
  wasm.setWasmPaths(join(dirname(main), sep))
  registerFallbacks()
  if (!(await withoutNewListeners(() => tf.setBackend('wasm')))) throw new Error('WebAssembly did not start')
  return wasm.version_wasm
}
