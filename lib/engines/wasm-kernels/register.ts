import { readFileSync } from 'node:fs'
import { tf } from '../../tf.js'
import { activationNumber } from '../kernels/register.js'

/** What is used of it; its whole type stands in TypeScript's library of the browser alone. */
declare const WebAssembly: {
  readonly Module: new (bytes: Uint8Array) => object
  readonly Instance: new (module: object, imports: object) => { readonly exports: object }
  validate(bytes: Uint8Array): boolean
}

/** Of TensorFlow.js's WebAssembly backend: tensors are addresses in one memory, which its module exports. */
interface WasmBackend extends tf.KernelBackend {
  readonly wasm: {
    readonly asm: { readonly memory: object }
    _malloc(bytes: number): number
    _free(address: number): void
  }
  makeOutput(shape: readonly number[], dtype: tf.DataType): tf.TensorInfo
  getMemoryOffset(dataId: object): number
}

/** The functions of assembly/index.ts; each takes numbers: addresses, sizes, factors. */
type Name = 'affine' | 'activation' | 'gated' | 'residual' | 'layerNorm' | 'rmsNorm' | 'rope' | 'attention' | 'attentionScratch'
type Functions = Readonly<Record<Name, (...numbers: readonly number[]) => number>>

type Inputs = Readonly<Record<string, tf.TensorInfo | undefined>>

/** What a kernel is given: the functions, addresses of tensors (0 of none), and where outputs and scratch memory come from. */
interface Call {
  readonly run: Functions
  readonly at: (tensor: tf.TensorInfo | undefined) => number
  readonly output: (shape: readonly number[]) => tf.TensorInfo
  readonly withScratch: (entries: number, use: (address: number) => void) => void
}

type Kernel = (call: Call, inputs: Inputs, attributes: Readonly<Record<string, unknown>>) => tf.TensorInfo

const size = (x: tf.TensorInfo): number => tf.util.sizeFromShape(x.shape)
const width = ({ shape }: tf.TensorInfo): number => shape.at(-1) ?? 1
const rows = (x: tf.TensorInfo): number => size(x) / Math.max(1, width(x))

const agree = (does: boolean, what: string): void => {
  if (!does) throw new Error(`${what} must agree`)
}

const affine: Kernel = ({ run, at, output }, { x, weight, bias }, { activation }) => {
  const [N, K] = weight!.shape as [number, number]
  agree(width(x!) === K && (!bias || size(bias) === N), `x [${x!.shape}], weight [${weight!.shape}] and bias [${bias?.shape}]`)
  const y = output([...x!.shape.slice(0, -1), N])
  run.affine(at(x), at(weight), at(bias), at(y), rows(x!), N, K, activationNumber(activation))
  return y
}

const activation: Kernel = ({ run, at, output }, { x }, { activation }) => {
  const y = output(x!.shape)
  run.activation(at(x), at(y), size(y), activationNumber(activation))
  return y
}

const gated: Kernel = ({ run, at, output }, { gate, up }, { activation }) => {
  agree(tf.util.arraysEqual(gate!.shape, up!.shape), `gate [${gate!.shape}] and up [${up!.shape}]`)
  const y = output(gate!.shape)
  run.gated(at(gate), at(up), at(y), size(y), activationNumber(activation))
  return y
}

const residual: Kernel = ({ run, at, output }, { x, branch, scale }) => {
  agree(tf.util.arraysEqual(x!.shape, branch!.shape) && size(scale!) === width(x!), 'x, branch and scale')
  const y = output(x!.shape)
  run.residual(at(x), at(branch), at(scale), at(y), rows(y), width(y))
  return y
}

const layerNorm: Kernel = ({ run, at, output }, { x, weight, bias }, { eps }) => {
  agree(size(weight!) === width(x!) && size(bias!) === width(x!), 'the last axis of x, weight and bias')
  const y = output(x!.shape)
  run.layerNorm(at(x), at(weight), at(bias), at(y), rows(y), width(y), eps as number)
  return y
}

const rmsNorm: Kernel = ({ run, at, output }, { x, weight }, { eps }) => {
  const D = size(weight!) // heads may stand side by side
  agree(D > 0 && width(x!) % D === 0, 'the last axis of x and weight')
  const y = output(x!.shape)
  run.rmsNorm(at(x), at(weight), at(y), size(y) / D, D, eps as number)
  return y
}

const rope: Kernel = ({ run, at, output }, { x, cos, sin }) => {
  const [B, H, L, K] = x!.shape as [number, number, number, number]
  const [tables, R] = [cos!.shape[0]!, width(cos!)]
  const whole = x!.shape.length === 4 && R % 2 === 0 && R <= K && (tables === 1 || tables === B) && size(cos!) === tables * L * R
  agree(whole && tf.util.arraysEqual(cos!.shape, sin!.shape), `x [${x!.shape}], cos [${cos!.shape}] and sin [${sin!.shape}]`)
  const y = output(x!.shape)
  run.rope(at(x), at(cos), at(sin), at(y), B, H, L, K, R, tables)
  return y
}

/** Heads, length and head size of `[B, H, L, K]`, or of `[B, L, heads · K]`. */
const headsOf = ({ shape }: tf.TensorInfo, heads: number) =>
  shape.length === 4 ? { H: shape[1]!, L: shape[2]!, K: shape[3]! } : { H: heads, L: shape[1]!, K: shape[2]! / heads }

const attention: Kernel = ({ run, at, output, withScratch }, { q, k, v, padding, sinks }, given) => {
  const { scale, heads = 0, keyHeads = heads, causal = false, window = 0 } = given as Readonly<Record<string, number>>
  const [{ H, L: Lq, K }, keys] = [headsOf(q!, heads), headsOf(k!, keyHeads)]
  const [B, G, Lk] = [q!.shape[0]!, keys.H, keys.L]
  const alike = tf.util.arraysEqual(k!.shape, v!.shape) && k!.shape[0] === B && keys.K === K && H % G === 0
  agree(alike && (!causal || Lq <= Lk), `q [${q!.shape}], k [${k!.shape}] and v [${v!.shape}]`)
  agree((!padding || [Lk, B * Lk].includes(size(padding))) && (!sinks || size(sinks) === H), 'padding, sinks and q, k, v')
  const out = output(q!.shape)
  const merged = Number(q!.shape.length === 3)
  const paddings = padding ? size(padding) / Lk : 0
  withScratch(run.attentionScratch(Lk, K), (scratch) => {
    const addresses = [q, k, v, padding, sinks, out].map(at)
    const flags = [merged, paddings, Number(causal), window || 0, scale!]
    run.attention(...addresses, scratch, B, H, G, Lq, Lk, K, ...flags)
  })
  return out
}

/** The kernels that `fused` of lib/nn asks for. */
const kernels: Readonly<Record<string, Kernel>> = {
  Affine: affine,
  Activation: activation,
  Gated: gated,
  Residual: residual,
  LayerNorm: layerNorm,
  RmsNorm: rmsNorm,
  Rope: rope,
  Attention: attention
}

const callOn = (run: Functions, backend: WasmBackend): Call => {
  const given = (address: number, bytes: number): number => {
    if (address === 0) throw new Error(`WebAssembly's memory (4 GiB at most) has no room for ${bytes} bytes more`)
    return address
  }
  const at = (tensor: tf.TensorInfo | undefined): number => {
    if (tensor && tensor.dtype !== 'float32') throw new Error(`expected float32 [${tensor.shape}], not ${tensor.dtype}`)
    return tensor ? backend.getMemoryOffset(tensor.dataId) : 0
  }
  return {
    run,
    at,
    output: (shape) => {
      const y = backend.makeOutput(shape, 'float32')
      given(at(y), 4 * size(y))
      return y
    },
    withScratch: (entries, use) => {
      const address = given(backend.wasm._malloc(4 * entries), 4 * entries)
      use(address)
      backend.wasm._free(address)
    }
  }
}

/**
 * Puts the kernels behind TensorFlow.js's registry, where `fused` finds them, once `wasm` is the backend. They run in the memory of
 * its own module, so no tensor is copied. Where the processor has no SIMD nothing is registered, and all runs on compositions.
 */
export const loadWasmKernels = (): void => {
  if (tf.getKernel('Affine', 'wasm')) return
  const bytes = readFileSync(new URL('kernels.wasm', import.meta.url)) // `npm run build:wasm` makes it of assembly/
  if (!WebAssembly.validate(bytes)) return
  const { wasm } = tf.backend() as WasmBackend
  const run = new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { memory: wasm.asm.memory } }).exports as Functions
  for (const [kernelName, kernel] of Object.entries(kernels)) {
    const kernelFunc: tf.KernelFunc = ({ inputs, attrs, backend }) =>
      kernel(callOn(run, backend as WasmBackend), inputs as Inputs, attrs ?? {})
    tf.registerKernel({ kernelName, backendName: 'wasm', kernelFunc })
  }
}
