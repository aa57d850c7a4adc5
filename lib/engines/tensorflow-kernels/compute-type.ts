import type { HalfType } from './device-ops.js'

/** Types of products in kernels of TensorFlow's ops; sums are always in float32. */
export interface ComputeTypes {
  /** Products with packed weights, by default bfloat16, or float16 on a GPU before Ampere. */
  readonly packed: 'float32' | HalfType
  /** Products with float32 weights, float32 by default: weight and input are rounded for each product. */
  readonly float32: 'float32' | HalfType
  /** Attention without a cache, float32 by default. */
  readonly attention: 'float32' | HalfType
}

/** Module-level because kernels have no further argument, as PyTorch's `torch.autocast`; `withComputeTypes` sets it for one synchronous call. */
let current: ComputeTypes = { packed: 'bfloat16', float32: 'float32', attention: 'float32' }

/** The types of products in the present call. */
export const computeTypes = (): ComputeTypes => current

/** The type of 16-bit products by default, set once when an engine with a GPU is loaded. */
let halfType: HalfType = 'bfloat16'

/** Sets the type of products with packed weights: float16 on a GPU without products in bfloat16. */
export const useHalfType = (type: HalfType): void => {
  halfType = type
  current = { ...current, packed: type }
}

/** The type of 16-bit products that the device is fast in. */
export const deviceHalfType = (): HalfType => halfType

/** Runs `f`, which must be synchronous, with other types of products. */
export const withComputeTypes = <A>(types: Partial<ComputeTypes>, f: () => A): A => {
  const before = current
  current = { ...current, ...types }
  try {
    return f()
  } finally {
    current = before
  }
}

/** Mixed precision: every product in `type`; norms, softmax, losses and weights stay float32. Source: `torch.autocast`. */
export const autocast = <A>(type: ComputeTypes['float32'], f: () => A): A =>
  withComputeTypes({ packed: type, float32: type, attention: type }, f)
