import type { Rgb } from './resize.js'

/** How 8-bit pixels become numbers; `mean` and `std` have one number a channel. */
export interface NormalizeOptions {
  readonly doRescale: boolean
  readonly rescaleFactor: number
  readonly doNormalize: boolean
  readonly mean: readonly number[]
  readonly std: readonly number[]
}

const { fround } = Math

/**
 * `[3, 256]`: what each 8-bit value becomes in each channel, `(x · rescaleFactor - mean) / std`, rounded to float32 after
 * every step as Transformers does.
 *
 * Source: `rescale` and `normalize` (transformers 5.23, image_transforms.py).
 */
export const normalizeTable = ({ doRescale, rescaleFactor, doNormalize, mean, std }: NormalizeOptions): readonly Float32Array[] =>
  [0, 1, 2].map((channel) =>
    Float32Array.from({ length: 256 }, (_, value) => {
      const x = doRescale ? fround(value * rescaleFactor) : value
      return doNormalize ? fround(x - fround(mean[channel]!)) / fround(std[channel]!) : x
    })
  )

/** Writes a tile into `out` from `offset` on as `[3, height, width]`, each pixel looked up in `table`. */
export const writeTile = (out: Float32Array, offset: number, tile: Rgb, table: readonly Float32Array[]): void => {
  const plane = tile.width * tile.height
  table.forEach((values, channel) => {
    const start = offset + channel * plane
    for (let i = 0; i < plane; i++) out[start + i] = values[tile.data[i * 3 + channel]!]!
  })
}
