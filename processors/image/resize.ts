import { valueText } from '../../lib/error.js'
/** An 8-bit image, three channels interleaved: `data[(y · width + x) · 3 + channel]`. */
export interface Rgb {
  readonly data: Uint8Array
  readonly width: number
  readonly height: number
}

/** Width and height in pixels. */
export interface Size {
  readonly width: number
  readonly height: number
}

/** Pillow's numbers for its filters, as a checkpoint's `resample` names them. */
export const RESAMPLE = { nearest: 0, lanczos: 1, bilinear: 2, bicubic: 3, box: 4, hamming: 5 } as const

interface Filter {
  readonly support: number
  readonly weight: (x: number) => number
}

const sinc = (x: number): number => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI))

const A = -0.5 // Keys' cubic convolution, as Pillow has it
const bicubic = (x: number): number => {
  const d = Math.abs(x)
  if (d < 1) return ((A + 2) * d - (A + 3)) * d * d + 1
  return d < 2 ? (((d - 5) * d + 8) * d - 4) * A : 0
}

const hamming = (x: number): number => {
  const d = Math.abs(x)
  if (d === 0) return 1
  return d >= 1 ? 0 : sinc(d) * (0.54 + 0.46 * Math.cos(d * Math.PI))
}

const FILTERS: Readonly<Record<number, Filter>> = {
  [RESAMPLE.lanczos]: { support: 3, weight: (x) => (-3 <= x && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
  [RESAMPLE.bilinear]: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  [RESAMPLE.bicubic]: { support: 2, weight: bicubic },
  [RESAMPLE.box]: { support: 0.5, weight: (x) => (-0.5 < x && x <= 0.5 ? 1 : 0) },
  [RESAMPLE.hamming]: { support: 1, weight: hamming }
}

/** Fixed-point filter weights: for every output position, the first input position and `count` weights, padded to `taps`. */
interface FilterTaps {
  readonly taps: number
  readonly bits: number
  readonly first: Int32Array
  readonly count: Int32Array
  readonly weights: Int32Array
}

/** Number of fractional bits of the fixed-point weights. */
type Precision = (weights: Float64Array) => number

// 32 bits less 8 of the pixel less 2 of headroom. Source: `PRECISION_BITS` (Pillow 13)
const pillowBits: Precision = () => 22

// the largest weight fills 15 bits. Source: `compute_indices_int16_weights_aa` (PyTorch 2.15)
const torchBits: Precision = (weights) => {
  const largest = weights.reduce((a, b) => Math.max(a, b), 0)
  let bits = 0
  while (bits < 22 && Math.trunc(0.5 + largest * (1 << (bits + 1))) < 1 << 15) bits++
  return bits
}

/** Filter weights for one axis. Source: `precompute_coeffs`, `normalize_coeffs_8bpc` (Pillow 13). */
const tapsOf = (from: number, to: number, { support: reach, weight }: Filter, precision: Precision): FilterTaps => {
  const scale = from / to
  const filterScale = Math.max(1, scale)
  const support = reach * filterScale
  const taps = Math.ceil(support) * 2 + 1
  const [first, count, k] = [new Int32Array(to), new Int32Array(to), new Float64Array(to * taps)]
  for (let out = 0; out < to; out++) {
    const center = (out + 0.5) * scale
    const start = Math.max(0, Math.trunc(center - support + 0.5))
    const n = Math.min(from, Math.trunc(center + support + 0.5)) - start
    let total = 0
    for (let i = 0; i < n; i++) total += k[out * taps + i] = weight((i + start - center + 0.5) * (1 / filterScale))
    for (let i = 0; i < n && total !== 0; i++) k[out * taps + i]! /= total
    first[out] = start
    count[out] = n
  }
  const bits = precision(k)
  const weights = Int32Array.from(k, (w) => Math.trunc(w * (1 << bits) + (w < 0 ? -0.5 : 0.5)))
  return { taps, bits, first, count, weights }
}

const clip8 = (value: number): number => (value < 0 ? 0 : Math.min(value, 255))

/** Rows `[top, bottom)` of `image`, resampled along x. */
const horizontal = (
  image: Rgb,
  width: number,
  { taps, bits, first, count, weights }: FilterTaps,
  top: number,
  bottom: number
): Rgb => {
  const half = 1 << (bits - 1)
  const source = image.data
  const data = new Uint8Array((bottom - top) * width * 3)
  let at = 0
  for (let y = top; y < bottom; y++) {
    const row = y * image.width
    for (let x = 0; x < width; x++) {
      let r = half
      let g = half
      let b = half
      let pixel = (row + first[x]!) * 3
      const end = x * taps + count[x]!
      for (let i = x * taps; i < end; i++, pixel += 3) {
        const w = weights[i]!
        r = (r + Math.imul(source[pixel]!, w)) | 0
        g = (g + Math.imul(source[pixel + 1]!, w)) | 0
        b = (b + Math.imul(source[pixel + 2]!, w)) | 0
      }
      data[at++] = clip8(r >> bits)
      data[at++] = clip8(g >> bits)
      data[at++] = clip8(b >> bits)
    }
  }
  return { data, width, height: bottom - top }
}

/** All columns, resampled along y; input rows count from `top`. Rows are processed one at a time for sequential memory access. */
const vertical = (image: Rgb, height: number, { taps, bits, first, count, weights }: FilterTaps, top: number): Rgb => {
  const stride = image.width * 3
  const data = new Uint8Array(height * stride)
  const sums = new Int32Array(stride)
  for (let y = 0; y < height; y++) {
    sums.fill(1 << (bits - 1))
    for (let i = 0; i < count[y]!; i++) {
      const w = weights[y * taps + i]!
      const row = image.data.subarray((first[y]! - top + i) * stride, (first[y]! - top + i + 1) * stride)
      for (let x = 0; x < stride; x++) sums[x] = sums[x]! + Math.imul(row[x]!, w)
    }
    for (let x = 0; x < stride; x++) data[y * stride + x] = clip8(sums[x]! >> bits)
  }
  return { data, width: image.width, height }
}

/** Source position of every output position along an axis, for the nearest filter. */
type Positions = (from: number, to: number) => Int32Array

/** Source positions by repeated addition, so that rounding errors accumulate as in Pillow. Source: `ImagingScaleAffine`. */
const pillowPositions: Positions = (from, to) => {
  const step = from / to
  let at = step * 0.5
  return Int32Array.from({ length: to }, () => {
    const position = Math.trunc(at)
    at += step
    return Math.min(position, from - 1)
  })
}

/** Source positions with a float32 scale. Source: `nearest_exact_idx` (PyTorch 2.15). */
const torchPositions: Positions = (from, to) => {
  const scale = Math.fround(from / to)
  return Int32Array.from({ length: to }, (_, i) => Math.min(Math.floor(Math.fround((i + 0.5) * scale)), from - 1))
}

const nearest = (image: Rgb, { width, height }: Size, positions: Positions): Rgb => {
  const [xs, ys] = [positions(image.width, width), positions(image.height, height)]
  const data = new Uint8Array(width * height * 3)
  let at = 0
  for (const y of ys)
    for (const x of xs) {
      const pixel = (y * image.width + x) * 3
      for (let c = 0; c < 3; c++) data[at++] = image.data[pixel + c]!
    }
  return { data, width, height }
}

const filterOf = (resample: number): Filter => {
  const filter = FILTERS[resample]
  if (!filter) throw new RangeError(`resample: expected a number from 0 to 5 (Pillow's filters), got ${valueText(resample)}`)
  return filter
}

/** Two passes with 8-bit values in between; an axis of equal size is skipped. */
const twoPasses = (image: Rgb, to: Size, filter: Filter, precision: Precision, verticalFirst: boolean): Rgb => {
  const columns = (from: Rgb, top: number, bottom: number): Rgb =>
    from.width === to.width ? from : horizontal(from, to.width, tapsOf(from.width, to.width, filter, precision), top, bottom)
  if (image.height === to.height) return columns(image, 0, image.height)
  const rows = tapsOf(image.height, to.height, filter, precision)
  if (verticalFirst || image.width === to.width) return columns(vertical(image, to.height, rows, 0), 0, to.height)
  const [top, bottom] = [rows.first[0]!, rows.first[to.height - 1]! + rows.count[to.height - 1]!]
  return vertical(columns(image, top, bottom), to.height, rows, top)
}

const isSize = (image: Rgb, { width, height }: Size): boolean => image.width === width && image.height === height

/**
 * Resizes an image; bit-exact to Pillow's `Image.resize` (integer arithmetic, two passes). An equal size returns `image`.
 * Throws a `RangeError` for a filter that is not in `RESAMPLE`.
 *
 * Source: `ImagingResample` (Pillow 13).
 */
export const resize = (image: Rgb, size: Size, resample: number = RESAMPLE.bicubic): Rgb => {
  if (isSize(image, size)) return image
  if (resample === RESAMPLE.nearest) return nearest(image, size, pillowPositions)
  // Pillow 13 runs the vertical pass first where the height shrinks much more than the width; 8-bit rounding between passes differs
  const [shorter, narrower] = [image.height - size.height, image.width - size.width]
  return twoPasses(image, size, filterOf(resample), pillowBits, shorter > 0 && shorter > 2 * narrower)
}

/**
 * Resizes an image; bit-exact to torchvision's antialiased `resize` of 8-bit tensors: coarser weights than Pillow's, the horizontal pass
 * first. An equal size returns `image`. Throws a `RangeError` for a filter that torchvision does not have: box, hamming, and those that are
 * not in `RESAMPLE`.
 *
 * Source: `upsample_avx_bilinear_bicubic_uint8` (PyTorch 2.15); `resize_image` (torchvision 0.29).
 */
export const resizeTorchvision = (image: Rgb, size: Size, resample: number = RESAMPLE.bicubic): Rgb => {
  if (isSize(image, size)) return image
  if (resample === RESAMPLE.nearest) return nearest(image, size, torchPositions)
  const filter = filterOf(resample)
  if (resample > RESAMPLE.bicubic)
    throw new RangeError(`resample: torchvision has no filter ${resample}; take 0 to 3, or Pillow's resize`)
  return twoPasses(image, size, filter, torchBits, false)
}
