import type { Rgb } from '../../processors/image/resize.js'

export type Colour = readonly [red: number, green: number, blue: number]

type Point = readonly [x: number, y: number]

/** An image of one colour. */
export const canvas = (width: number, height: number, colour: Colour): Rgb => {
  const data = new Uint8Array(width * height * 3)
  for (let i = 0; i < width * 3; i++) data[i] = colour[i % 3]!
  for (let row = 1; row < height; row++) data.copyWithin(row * width * 3, 0, width * 3)
  return { data, width, height }
}

/** Colours the pixels of a row from column `from` to column `to`, both included, clipped to the image. */
const span = ({ data, width, height }: Rgb, row: number, from: number, to: number, [r, g, b]: Colour): void => {
  if (row < 0 || row >= height) return
  const end = (row * width + Math.min(width - 1, to)) * 3
  for (let i = (row * width + Math.max(0, from)) * 3; i <= end; i += 3) {
    data[i] = r
    data[i + 1] = g
    data[i + 2] = b
  }
}

/** Fills the box between two corners, both included. */
export const rectangle = (image: Rgb, box: readonly [number, number, number, number], colour: Colour): void => {
  const [left, top, right, bottom] = box.map(Math.trunc) as [number, number, number, number]
  for (let row = top; row <= bottom; row++) span(image, row, left, right, colour)
}

/** The nearest number to `value` that differs from `parity` by a multiple of 2. */
const roundToParity = (value: number, parity: number): number => 2 * Math.round((value - parity) / 2) + parity

/**
 * Fills the ellipse in the box between two corners, both included. In half pixels from the centre, a row `y` extends to the nearest point
 * of the curve `(x/w)² + (y/h)² = 1`; where the curve is flat, the row extends to the last point that is nearest to this row.
 */
export const ellipse = (image: Rgb, box: readonly [number, number, number, number], colour: Colour): void => {
  const [left, top, right, bottom] = box.map(Math.trunc) as [number, number, number, number]
  const [w, h] = [right - left, bottom - top]
  const curve = (y: number): number => w * Math.sqrt(Math.max(0, 1 - (y / Math.max(1, h)) ** 2))
  for (let row = top; row <= bottom; row++) {
    const y = Math.abs(2 * row - top - bottom)
    const flat = y > 0 ? 2 * Math.floor((curve(y - 1) - (w % 2)) / 2) + (w % 2) : 0
    const reach = Math.max(roundToParity(curve(y), w % 2), flat)
    span(image, row, (left + right - reach) / 2, (left + right + reach) / 2, colour)
  }
}

/** Sorted columns at which a row crosses the outline. A corner where two edges meet counts once for each edge. */
const crossings = (corners: readonly Point[], row: number, last: number): readonly number[] =>
  corners
    .flatMap(([x0, y0], i) => {
      const [x1, y1] = corners[(i + 1) % corners.length]!
      if (y0 === y1 || row < Math.min(y0, y1) || row > Math.max(y0, y1)) return []
      const x = x0 + ((row - y0) * (x1 - x0)) / (y1 - y0)
      return row === Math.max(y0, y1) && row < last ? [x, x] : [x]
    })
    .sort((a, b) => a - b)

/** Fills a polygon, including its outline. */
export const polygon = (image: Rgb, points: readonly Point[], colour: Colour): void => {
  const corners = points.map(([x, y]): Point => [Math.trunc(x), Math.trunc(y)])
  const rows = corners.map(([, y]) => y)
  const last = Math.max(...rows)
  for (let row = Math.min(...rows); row <= last; row++) {
    const xs = crossings(corners, row, last)
    for (let i = 1; i < xs.length; i += 2) span(image, row, Math.floor(xs[i - 1]! + 0.5), Math.ceil(xs[i]! - 0.5), colour)
  }
  for (const [i, [x0, y0]] of corners.entries()) {
    const [x1, y1] = corners[(i + 1) % corners.length]!
    if (y0 === y1) span(image, y0, Math.min(x0, x1), Math.max(x0, x1), colour)
  }
}
