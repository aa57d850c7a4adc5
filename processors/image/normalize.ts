import type { ImageBackend } from './image-backend.js'
import type { Rgb } from './resize.js'

/** Rescaling and normalization of 8-bit pixels; `mean` and `std` have one number per channel. */
export interface NormalizeOptions {
  readonly doRescale: boolean
  readonly rescaleFactor: number
  readonly doNormalize: boolean
  readonly mean: readonly number[]
  readonly std: readonly number[]
}

const { fround } = Math

type Normalize = (options: NormalizeOptions, channel: number) => (value: number) => number

/** Source: `rescale` and `normalize` (transformers 5.24, image_transforms.py). */
const normalizePillow: Normalize =
  ({ doRescale, rescaleFactor, doNormalize, mean, std }, channel) =>
  (value) => {
    const x = doRescale ? fround(value * rescaleFactor) : value
    return doNormalize ? fround(x - fround(mean[channel]!)) / fround(std[channel]!) : x
  }

/** Rescaling is part of `mean` and `std`. Source: `TorchvisionBackend.rescale_and_normalize` (transformers 5.24). */
const normalizeTorchvision: Normalize = ({ doRescale, rescaleFactor, doNormalize, mean, std }, channel) => {
  if (!doNormalize) return (value) => (doRescale ? value * fround(rescaleFactor) : value)
  const scale = doRescale ? fround(1 / rescaleFactor) : 1
  const [shift, divisor] = [mean, std].map((values) => fround(fround(values[channel]!) * scale))
  return (value) => fround(value - shift!) / divisor!
}

const NORMALIZES: Readonly<Record<ImageBackend, Normalize>> = { torchvision: normalizeTorchvision, pillow: normalizePillow }

/**
 * Lookup table `[3, 256]` of normalized values, `(x · rescaleFactor - mean) / std` for each channel and 8-bit value, rounded to
 * float32 after every step as Transformers does with the backend.
 */
export const normalizeTable = (options: NormalizeOptions, backend: ImageBackend): readonly Float32Array[] =>
  [0, 1, 2].map((channel) => Float32Array.from({ length: 256 }, (_, value) => NORMALIZES[backend](options, channel)(value)))

/** Writes a tile as `[3, height, width]` into `out` from `offset` on; pixels are looked up in `table`. */
export const writeTile = (out: Float32Array, offset: number, tile: Rgb, table: readonly Float32Array[]): void => {
  const plane = tile.width * tile.height
  table.forEach((values, channel) => {
    const start = offset + channel * plane
    for (let i = 0; i < plane; i++) out[start + i] = values[tile.data[i * 3 + channel]!]!
  })
}
