import { fromFloat32, toFloat32 } from '../dtype.js'
import { fused } from '../ops/fused.js'
import { expectAxes, ShapeError } from '../shape.js'
import { tf } from '../tf.js'
import { expectHeads, mergeHeads, splitHeads } from './attention/attention.js'

/** Parameters of rotary position embeddings: the base, and the scaling beyond the trained length. */
export interface RopeParameters {
  readonly ropeType: 'default' | 'linear' | 'dynamic' | 'yarn' | 'longrope' | 'llama3'
  readonly ropeTheta: number
  readonly partialRotaryFactor?: number | undefined
  readonly factor?: number | undefined
  readonly originalMaxPositionEmbeddings?: number | undefined
  readonly attentionFactor?: number | undefined
  readonly betaFast?: number | undefined
  readonly betaSlow?: number | undefined
  readonly mscale?: number | undefined
  readonly mscaleAllDim?: number | undefined
  readonly truncate?: boolean | undefined
  readonly lowFreqFactor?: number | undefined
  readonly highFreqFactor?: number | undefined
  readonly shortFactor?: readonly number[] | undefined
  readonly longFactor?: readonly number[] | undefined
  /**
   * Rounds the frequencies as PyTorch does when a whole model is cast with `.to(torch.bfloat16)`: its rotary buffer is cast too.
   * `from_pretrained(dtype=torch.bfloat16)` does not round; this library rounds only with this option.
   */
  readonly roundedTo?: 'BF16' | 'F16' | undefined
}

/** Cosines and sines `[B, 1, L, R]` of the rotary angles; the first R entries of a head are rotated. */
export interface RopeTables {
  readonly cos: tf.Tensor4D
  readonly sin: tf.Tensor4D
}

/** Inverse frequencies (radians a position), one for each pair of entries, and the factor on cosines and sines. */
export interface Frequencies {
  readonly inverse: readonly number[]
  readonly scaling: number
}

/** Rounds every step to float32 as Transformers does; the difference matters at positions in the thousands. */
const f32 = Math.fround

const exponents = (size: number): readonly number[] => Array.from({ length: Math.ceil(size / 2) }, (_, i) => f32((2 * i) / size))

const powers = (base: number, size: number): readonly number[] => exponents(size).map((e) => f32(f32(base) ** e))

const geometric = (base: number, size: number): readonly number[] => powers(base, size).map((p) => f32(1 / p))

const clamp01 = (x: number): number => Math.min(1, Math.max(0, x))

/** Source: Peng et al. 2023, YaRN, with Transformers' `truncate`. */
const yarn = (rope: RopeParameters, size: number, trained: number, factor: number): Frequencies => {
  const { ropeTheta: base, truncate = true, mscale, mscaleAllDim } = rope
  const dimension = (rotations: number) => (size * Math.log(trained / (rotations * 2 * Math.PI))) / (2 * Math.log(base))
  const ends = [dimension(rope.betaFast || 32), dimension(rope.betaSlow || 1)] as const
  const [low, high] = truncate ? [Math.floor(ends[0]), Math.ceil(ends[1])] : ends
  const [from, to] = [Math.max(low, 0), Math.min(high, size - 1)]
  const extrapolated = (i: number) => f32(1 - clamp01(f32(f32(i - from) / f32(from === to ? 0.001 : to - from))))
  const magnitude = (m: number) => (factor <= 1 ? 1 : 0.1 * m * Math.log(factor) + 1)
  const inferred = mscale && mscaleAllDim ? magnitude(mscale) / magnitude(mscaleAllDim) : magnitude(1)
  return {
    inverse: powers(base, size).map((p, i) => {
      const share = extrapolated(i)
      return f32(f32(f32(1 / f32(f32(factor) * p)) * f32(1 - share)) + f32(f32(1 / p) * share))
    }),
    scaling: rope.attentionFactor ?? inferred
  }
}

/** Source: the `llama3` scaling of Llama 3.1. */
const llama3 = (rope: RopeParameters, size: number, trained: number, factor: number): Frequencies => {
  const { lowFreqFactor: low = 1, highFreqFactor: high = 4 } = rope
  const scaled = (f: number): number => {
    const wavelength = f32((2 * Math.PI) / f)
    if (wavelength > trained / low) return f32(f / f32(factor))
    if (wavelength < trained / high) return f
    const smooth = f32(f32(f32(trained / wavelength) - low) / (high - low))
    return f32(f32(f32(f32(1 - smooth) * f) / f32(factor)) + f32(smooth * f))
  }
  return { inverse: geometric(rope.ropeTheta, size).map(scaled), scaling: 1 }
}

/** Source: Ding et al. 2024, LongRoPE, as Phi-3 uses it: the short factors up to the trained length, the long ones beyond. */
const longrope = (rope: RopeParameters, size: number, trained: number, factor: number, length: number): Frequencies => {
  const factors = (length > trained ? rope.longFactor : rope.shortFactor) ?? []
  const inferred = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(trained))
  return {
    inverse: powers(rope.ropeTheta, size).map((p, i) => f32(1 / f32(f32(factors[i] ?? 1) * p))),
    scaling: rope.attentionFactor ?? inferred
  }
}

/** Scales the base with the sequence length beyond the trained length. Source: dynamic NTK scaling (u/emozilla 2023). */
const dynamicBase = (base: number, factor: number, size: number, trained: number, length: number): number =>
  base * ((factor * Math.max(length, trained)) / trained - (factor - 1)) ** (size / (size - 2))

const exactFrequencies = (rope: RopeParameters, headDim: number, maxPositions: number, length: number): Frequencies => {
  const size = Math.floor(headDim * (rope.partialRotaryFactor ?? 1))
  const trained = rope.originalMaxPositionEmbeddings ?? maxPositions
  const factor = rope.factor ?? maxPositions / trained
  const base = rope.ropeTheta
  switch (rope.ropeType) {
    case 'default':
      return { inverse: geometric(base, size), scaling: 1 }
    case 'linear':
      return { inverse: geometric(base, size).map((f) => f32(f / f32(factor))), scaling: 1 }
    case 'dynamic':
      return { inverse: geometric(dynamicBase(base, factor, size, maxPositions, length), size), scaling: 1 }
    case 'yarn':
      return yarn(rope, size, trained, factor)
    case 'llama3':
      return llama3(rope, size, trained, factor)
    case 'longrope':
      return longrope(rope, size, trained, factor, length)
  }
}

/**
 * Frequencies for heads of `headDim` entries and a sequence of `length` positions.
 * Source: `modeling_rope_utils` (transformers 5.24), each `rope_type`.
 */
export const ropeFrequencies = (rope: RopeParameters, headDim: number, maxPositions: number, length: number): Frequencies => {
  const exact = exactFrequencies(rope, headDim, maxPositions, length)
  const trained = rope.originalMaxPositionEmbeddings ?? maxPositions
  // these types compute new frequencies beyond the trained length, in float32
  const recomputed = (rope.ropeType === 'dynamic' || rope.ropeType === 'longrope') && length > trained
  if (!rope.roundedTo || recomputed) return exact
  const rounded = toFloat32(fromFloat32(Float32Array.from(exact.inverse), rope.roundedTo), rope.roundedTo)
  return { ...exact, inverse: Array.from(rounded) }
}

/**
 * The length for which Transformers' rotary module of type `dynamic` computes frequencies in a forward of `length` positions, if the
 * length of the last forward was `before`: the module keeps the longest length until a sequence is shorter than the trained length.
 * Forwards of this library have no such state; pass the result as `ropeLength` for the same numbers. Source: `dynamic_rope_update`.
 */
export const dynamicRopeLength = (before: number, length: number, trained: number): number =>
  length > before ? length : length < trained && before > trained ? trained : before

/** Positions of each row, `[B][L]`; fractions are allowed. */
export type Positions = ReadonlyArray<readonly number[]>

/** Tables for the given positions. Angles are rounded to float32 before the cosine, as PyTorch computes them. */
export const ropeTables = ({ inverse, scaling }: Frequencies, positions: Positions): RopeTables => {
  const half = inverse.length
  const [B, L] = [positions.length, positions[0]?.length ?? 0]
  const other = positions.find((row) => row.length !== L)
  if (other) throw new ShapeError(`ropeTables: rows of ${L} and of ${other.length} positions; pad them to one length`)
  const [cos, sin] = [new Float32Array(B * L * 2 * half), new Float32Array(B * L * 2 * half)]
  positions.flat().forEach((position, row) => {
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(position * inverse[i]!)
      const at = row * 2 * half + i
      cos[at] = cos[at + half] = Math.cos(angle) * scaling
      sin[at] = sin[at + half] = Math.sin(angle) * scaling
    }
  })
  return { cos: tf.tensor4d(cos, [B, 1, L, 2 * half]), sin: tf.tensor4d(sin, [B, 1, L, 2 * half]) }
}

/** The composition of `applyRope`. */
const rotateHeads = (x: tf.Tensor4D, { cos, sin }: RopeTables): tf.Tensor4D => {
  const [R, K] = [cos.shape[3], x.shape[3]]
  const [first, second, ...rest] = tf.split(x, K > R ? [R / 2, R / 2, K - R] : 2, 3) as [tf.Tensor4D, tf.Tensor4D]
  const rotatedPart = K > R ? tf.concat([first, second], 3) : x
  const rotated = rotatedPart.mul(cos).add<tf.Tensor4D>(tf.concat([second.neg(), first], 3).mul(sin))
  return K > R ? tf.concat([rotated, ...rest], 3) : rotated
}

const expectRotated = (R: number, K: number): void => {
  if (R > K || R % 2 !== 0) throw new ShapeError(`applyRope: ${R} rotated entries: expected an even number of at most ${K}`)
}

/**
 * Rotates the first R entries of each head of `x` `[B, H, L, K]` by its position's angles; entry i is paired with i + R/2.
 * Source: Su et al. 2021, eq. 34, in the half-split order of Transformers' `rotate_half`.
 */
export const applyRope = (input: tf.Tensor4D, tables: RopeTables): tf.Tensor4D => {
  const { K, R } = expectAxes('applyRope', { x: [input, 'B H L K'], cos: [tables.cos, '* 1 L R'], sin: [tables.sin, '* 1 L R'] }) as Record<'K' | 'R', number> // biome-ignore format: one line
  expectRotated(R, K)
  return fused('Rope', { x: input, ...tables }, {}, ({ x, cos, sin }) => rotateHeads(x, { cos, sin }))
}

/** `applyRope` of merged heads, `[B, L, H·K] → [B, L, H·K]`. */
export const applyRopeMerged = (input: tf.Tensor3D, heads: number, tables: RopeTables): tf.Tensor3D => {
  const { D, R } = expectAxes('applyRopeMerged', { x: [input, 'B L D'], cos: [tables.cos, '* 1 L R'], sin: [tables.sin, '* 1 L R'] }) as Record<'D' | 'R', number> // biome-ignore format: one line
  expectHeads('applyRopeMerged', heads, D)
  expectRotated(R, D / heads)
  return fused('Rope', { x: input, ...tables }, { numHeads: heads }, ({ x, cos, sin }) =>
    mergeHeads(rotateHeads(splitHeads(x, heads), { cos, sin }))
  )
}
