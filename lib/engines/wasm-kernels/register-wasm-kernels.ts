import { readFileSync } from 'node:fs'
import { tf } from '../../tf.js'
import { activationNumber } from '../kernels/register.js'

/** The used part of `WebAssembly`, whose whole type is only in TypeScript's DOM library. */
declare const WebAssembly: {
  readonly Module: new (bytes: Uint8Array) => object
  readonly Instance: new (module: object, imports: object) => { readonly exports: object }
  validate(bytes: Uint8Array): boolean
}

/** The used part of TensorFlow.js's WebAssembly backend. A tensor is an address in the memory that its module exports. */
interface WasmBackend extends tf.KernelBackend {
  readonly wasm: {
    readonly asm: { readonly memory: object }
    _malloc(bytes: number): number
    _free(address: number): void
  }
  makeOutput(shape: readonly number[], dtype: tf.DataType): tf.TensorInfo
  getMemoryOffset(dataId: object): number
}

/** The functions of assembly/index.ts. All parameters are numbers: addresses, sizes, factors. */
type Name = 'affine' | 'activation' | 'gated' | 'residual' | 'layerNorm' | 'rmsNorm' | 'rope' | 'attention' | 'attentionScratch'
type Functions = Readonly<Record<Name, (...numbers: readonly number[]) => number>>

type Inputs = Readonly<Record<string, tf.TensorInfo | undefined>>

/** The context of a kernel call. */
interface KernelContext {
  readonly run: Functions
  /** Address of a tensor; 0 for `undefined`. */
  readonly at: (tensor: tf.TensorInfo | undefined) => number
  readonly output: (shape: readonly number[]) => tf.TensorInfo
  readonly withScratch: (entries: number, use: (address: number) => void) => void
}

type Kernel = (context: KernelContext, inputs: Inputs, attributes: Readonly<Record<string, unknown>>) => tf.TensorInfo

const size = (x: tf.TensorInfo): number => tf.util.sizeFromShape(x.shape)
const width = ({ shape }: tf.TensorInfo): number => shape.at(-1) ?? 1
const rows = (x: tf.TensorInfo): number => size(x) / Math.max(1, width(x))

const expectAgreement = (agrees: boolean, inputs: string): void => {
  if (!agrees) throw new Error(`the shapes of ${inputs} must agree`)
}

const affine: Kernel = ({ run, at, output }, { x, weight, bias }, { activation }) => {
  const [N, K] = weight!.shape as [number, number]
  expectAgreement(
    width(x!) === K && (!bias || size(bias) === N),
    `x [${x!.shape}], weight [${weight!.shape}] and bias [${bias?.shape}]`
  )
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
  expectAgreement(tf.util.arraysEqual(gate!.shape, up!.shape), `gate [${gate!.shape}] and up [${up!.shape}]`)
  const y = output(gate!.shape)
  run.gated(at(gate), at(up), at(y), size(y), activationNumber(activation))
  return y
}

const residual: Kernel = ({ run, at, output }, { x, branch, scale }) => {
  expectAgreement(tf.util.arraysEqual(x!.shape, branch!.shape) && size(scale!) === width(x!), 'x, branch and scale')
  const y = output(x!.shape)
  run.residual(at(x), at(branch), at(scale), at(y), rows(y), width(y))
  return y
}

const layerNorm: Kernel = ({ run, at, output }, { x, weight, bias }, { eps }) => {
  expectAgreement(size(weight!) === width(x!) && size(bias!) === width(x!), 'the last axis of x, weight and bias')
  const y = output(x!.shape)
  run.layerNorm(at(x), at(weight), at(bias), at(y), rows(y), width(y), eps as number)
  return y
}

const rmsNorm: Kernel = ({ run, at, output }, { x, weight }, { eps }) => {
  const D = size(weight!) // the last axis may hold several heads
  expectAgreement(D > 0 && width(x!) % D === 0, 'the last axis of x and weight')
  const y = output(x!.shape)
  run.rmsNorm(at(x), at(weight), at(y), size(y) / D, D, eps as number)
  return y
}

const rope: Kernel = ({ run, at, output }, { x, cos, sin }) => {
  const [B, H, L, K] = x!.shape as [number, number, number, number]
  const [tables, R] = [cos!.shape[0]!, width(cos!)]
  const valid = x!.shape.length === 4 && R % 2 === 0 && R <= K && (tables === 1 || tables === B) && size(cos!) === tables * L * R
  expectAgreement(
    valid && tf.util.arraysEqual(cos!.shape, sin!.shape),
    `x [${x!.shape}], cos [${cos!.shape}] and sin [${sin!.shape}]`
  )
  const y = output(x!.shape)
  run.rope(at(x), at(cos), at(sin), at(y), B, H, L, K, R, tables)
  return y
}

/** Heads, length and head size of `[B, H, L, K]`, or of `[B, L, heads · K]`. */
const headsOf = ({ shape }: tf.TensorInfo, heads: number) =>
  shape.length === 4 ? { H: shape[1]!, L: shape[2]!, K: shape[3]! } : { H: heads, L: shape[1]!, K: shape[2]! / heads }

const attention: Kernel = ({ run, at, output, withScratch }, { q, k, v, mask: padding, sinks }, attributes) => {
  const {
    scale,
    numHeads: heads = 0,
    numKeyValueHeads = heads,
    causal = false,
    window = 0
  } = attributes as Readonly<Record<string, number>>
  const [{ H, L: Lq, K }, keys] = [headsOf(q!, heads), headsOf(k!, numKeyValueHeads)]
  const [B, G, Lk] = [q!.shape[0]!, keys.H, keys.L]
  const compatible = tf.util.arraysEqual(k!.shape, v!.shape) && k!.shape[0] === B && keys.K === K && H % G === 0
  expectAgreement(compatible && (!causal || Lq <= Lk), `q [${q!.shape}], k [${k!.shape}] and v [${v!.shape}]`)
  expectAgreement(
    (!padding || [Lk, B * Lk].includes(size(padding))) && (!sinks || size(sinks) === H),
    'padding, sinks and q, k, v'
  )
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

/** Kernels by their names in the TensorFlow.js registry. */
const kernels: Readonly<Record<string, Kernel>> = {
  Linear: affine,
  Activation: activation,
  GatedActivation: gated,
  ScaledResidual: residual,
  LayerNorm: layerNorm,
  RmsNorm: rmsNorm,
  Rope: rope,
  Attention: attention
}

const contextOf = (run: Functions, backend: WasmBackend): KernelContext => {
  const expectAddress = (address: number, bytes: number): number => {
    if (address === 0) throw new Error(`WebAssembly's memory (4 GiB at most) is full: ${bytes} more bytes do not fit`)
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
      expectAddress(at(y), 4 * size(y))
      return y
    },
    withScratch: (entries, use) => {
      const address = expectAddress(backend.wasm._malloc(4 * entries), 4 * entries)
      use(address)
      backend.wasm._free(address)
    }
  }
}

/**
 * Registers the kernels with TensorFlow.js once `wasm` is the backend. They run in the memory of the backend's own module, so no
 * tensor is copied. Without SIMD on the processor, no kernel is registered and operations are composed of TensorFlow.js's ops.
 */
export const loadWasmKernels = (): void => {
  if (tf.getKernel('Linear', 'wasm')) return
  const bytes = readFileSync(new URL('kernels.wasm', import.meta.url)) // compiled from assembly/ by `npm run build:wasm`
  if (!WebAssembly.validate(bytes)) return
  const { wasm } = tf.backend() as WasmBackend
  const run = new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { memory: wasm.asm.memory } }).exports as Functions
  for (const [kernelName, kernel] of Object.entries(kernels)) {
    const kernelFunc: tf.KernelFunc = ({ inputs, attrs, backend }) =>
      kernel(contextOf(run, backend as WasmBackend), inputs as Inputs, attrs ?? {})
    tf.registerKernel({ kernelName, backendName: 'wasm', kernelFunc })
  }
}
