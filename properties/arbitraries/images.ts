import fc from 'fast-check'
import type { Rgb, Size } from '../../processors/image/resize.js'

/** Width and height of 1 to `max` pixels. */
export const sizes = (max: number): fc.Arbitrary<Size> =>
  fc.record({ width: fc.integer({ min: 1, max }), height: fc.integer({ min: 1, max }) })

/** An image of 1 to `max` pixels a side. */
export const images = (max: number): fc.Arbitrary<Rgb> =>
  sizes(max).chain(({ width, height }) => {
    const length = width * height * 3
    return fc.uint8Array({ minLength: length, maxLength: length }).map((data) => ({ data, width, height }))
  })

/** An image of one colour. */
export const plain = (max: number): fc.Arbitrary<Rgb> =>
  fc.tuple(sizes(max), fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255))).map(([size, colour]) => ({
    ...size,
    data: Uint8Array.from({ length: size.width * size.height * 3 }, (_, i) => colour[i % 3]!)
  }))

/** Bounds on the number of tiles, `min` not above `max`. */
export const bounds = (most: number): fc.Arbitrary<readonly [min: number, max: number]> =>
  fc.integer({ min: 1, max: most }).chain((max) => fc.integer({ min: 1, max }).map((min) => [min, max] as const))
