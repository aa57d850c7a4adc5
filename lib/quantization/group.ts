import { fromFloat32, toFloat32 } from '../dtype.js'

/** Number of weights in a group, which has one scale. */
export const groupSize = 32

const { fround } = Math
/** Rounds to the nearest bfloat16. */
export const bfloat16 = (x: number): number => toFloat32(fromFloat32(Float32Array.of(x), 'BF16'), 'BF16')[0]!

/** Rounds to the nearest integer, ties to even. */
export const nearestEven = (x: number): number => fround(fround(x + 12582912) - 12582912)

/** Quantizes a group: its scale and numbers. */
export type QuantizeGroup = (weights: Float32Array) => { readonly scale: number; readonly numbers: Int8Array }
