import type { HalfType } from './device-ops.js'

/** Type of matrix products; `auto` is the type of the weight, and bfloat16 for weights in 8 bits or fewer. */
export type ComputeType = 'auto' | 'float32' | HalfType

/** Module-level because kernels have no further argument, as PyTorch's `torch.autocast`; only `withComputeType` sets the value, for one synchronous call. */
let current: ComputeType = 'auto'

/** The type of matrix products in the present call. */
export const computeType = (): ComputeType => current

/** Runs `f`, which must be synchronous, with another type of matrix products. Source: `torch.autocast`. */
export const withComputeType = <A>(type: ComputeType, f: () => A): A => {
  const before = current
  current = type
  try {
    return f()
  } finally {
    current = before
  }
}
