import { type Rgb, resize, type Size } from './resize.js'

/** Columns and rows of tiles. */
export interface Grid {
  readonly columns: number
  readonly rows: number
}

/** How a picture is cut: the size of a tile in pixels, and the bounds on the number of tiles, the thumbnail apart. */
export interface TilingOptions {
  readonly size: Size
  readonly resample: number
  readonly cropToPatches: boolean
  readonly minPatches: number
  readonly maxPatches: number
  readonly useThumbnail: boolean
}

/**
 * All grids of `min` to `max` tiles, fewest tiles first; among equals the narrower first.
 *
 * Source: `get_all_supported_aspect_ratios` (transformers 5.23). OpenGVLab's own order differs for `min > 1` at exact ties.
 */
export const supportedGrids = (min: number, max: number): readonly Grid[] =>
  Array.from({ length: max * max }, (_, i) => ({ columns: Math.floor(i / max) + 1, rows: (i % max) + 1 }))
    .filter(({ columns, rows }) => min <= columns * rows && columns * rows <= max)
    .sort((a, b) => a.columns * a.rows - b.columns * b.rows)

/**
 * The grid whose aspect ratio is nearest to that of a picture; at a tie the one of more tiles, as long as the picture
 * has more than half of the grid's pixels. 1 x 1 when no grid lies in the bounds.
 *
 * Source: `get_optimal_tiled_canvas` (transformers 5.23).
 */
export const bestGrid = (picture: Size, tile: Size, min: number, max: number): Grid => {
  const aspect = picture.width / picture.height
  const area = picture.width * picture.height
  let best: Grid = { columns: 1, rows: 1 }
  let least = Number.POSITIVE_INFINITY
  for (const grid of supportedGrids(min, max)) {
    const difference = Math.abs(aspect - grid.columns / grid.rows)
    const large = area > 0.5 * tile.height * tile.width * grid.columns * grid.rows
    if (difference < least || (difference === least && large)) best = grid
    least = Math.min(least, difference)
  }
  return best
}

const gridOf = (picture: Size, { size, cropToPatches, minPatches, maxPatches }: TilingOptions): Grid =>
  cropToPatches && maxPatches > 1 ? bestGrid(picture, size, minPatches, maxPatches) : { columns: 1, rows: 1 }

/** Number of tiles of a picture, its thumbnail included, from its size alone. */
export const countTiles = (picture: Size, options: TilingOptions): number => {
  const { columns, rows } = gridOf(picture, options)
  const tiles = columns * rows
  return tiles > 1 && options.useThumbnail ? tiles + 1 : tiles
}

/** The part of a picture that begins at pixel (`left`, `top`). */
export const crop = (image: Rgb, left: number, top: number, { width, height }: Size): Rgb => {
  const data = new Uint8Array(width * height * 3)
  for (let y = 0; y < height; y++) {
    const start = ((top + y) * image.width + left) * 3
    data.set(image.data.subarray(start, start + width * 3), y * width * 3)
  }
  return { data, width, height }
}

/**
 * A picture as tiles: resized to the whole grid (its aspect ratio gives way), cut row by row, and, when that is more than
 * one tile, the whole picture in one tile as the last.
 *
 * Source: `GotOcr2ImageProcessorPil.crop_image_to_patches` (transformers 5.23).
 */
export const tilesOf = (image: Rgb, options: TilingOptions): readonly Rgb[] => {
  const { size, resample, useThumbnail } = options
  const { columns, rows } = gridOf(image, options)
  const canvas = resize(image, { width: size.width * columns, height: size.height * rows }, resample)
  if (columns * rows === 1) return [canvas]
  const tiles = Array.from({ length: columns * rows }, (_, i) =>
    crop(canvas, (i % columns) * size.width, Math.floor(i / columns) * size.height, size)
  )
  return useThumbnail ? [...tiles, resize(image, size, resample)] : tiles
}
