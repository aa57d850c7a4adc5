import { fused } from '../ops/fused.js'
import { tf } from '../tf.js'

/** A layer on the last axis that keeps the rank of its input. */
export type OnLastAxis = <R extends tf.Rank>(x: tf.Tensor<R>) => tf.Tensor<R>

const named =
  (activation: string, composition: OnLastAxis): OnLastAxis =>
  <R extends tf.Rank>(input: tf.Tensor<R>): tf.Tensor<R> =>
    fused('Activation', { x: input }, { activation }, ({ x }) => composition(x))

/** Exact GELU, `x · Φ(x)` (`torch.nn.functional.gelu`, `approximate='none'`). */
export const gelu = named('gelu', (x) => x.mul(x.mul(Math.SQRT1_2).erf().add(1).mul(0.5)))

/** GELU by tanh, `x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))`. Source: Hendrycks & Gimpel 2016. */
export const geluTanh = named('gelu_new', (x) =>
  x.mul(0.5).mul(
    x
      .add(x.mul(x).mul(x).mul(0.044715))
      .mul(Math.sqrt(2 / Math.PI))
      .tanh()
      .add(1)
  )
)

/** `x · σ(1.702 x)`, CLIP's approximation of GELU. */
export const quickGelu = named('quick_gelu', (x) => x.mul(x.mul(1.702).sigmoid()))

/** `x · σ(x)`: SiLU, also called swish. */
export const silu = named('silu', (x) => x.mul(x.sigmoid()))

/** Activations by their names in configurations (`hidden_act`), as Transformers' `ACT2FN`. */
export const activations = {
  gelu,
  gelu_new: geluTanh,
  gelu_pytorch_tanh: geluTanh,
  quick_gelu: quickGelu,
  silu,
  swish: silu,
  relu: (x) => tf.relu(x) as typeof x
} as const satisfies Record<string, OnLastAxis>

export type Activation = keyof typeof activations

/** The names of `activations`. */
export const activationNames = Object.keys(activations) as readonly Activation[]

/** `act(gate) ⊙ up`, of one shape: gated linear units. Source: Shazeer 2020. */
export const gated = <R extends tf.Rank>(activation: Activation, gate: tf.Tensor<R>, up: tf.Tensor<R>): tf.Tensor<R> =>
  fused('GatedActivation', { gate, up }, { activation }, (t) => activations[activation](t.gate).mul(t.up))
