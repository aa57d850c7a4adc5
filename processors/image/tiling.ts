import { type ImageBackend, RESIZES } from './image-backend.js'
import type { Rgb, Size } from './resize.js'

/** Columns and rows of tiles. */
export interface Grid {
  readonly columns: number
  readonly rows: number
}

/** Tiling of an image: the size of a tile in pixels, and the bounds on the number of tiles without the thumbnail. */
export interface TilingOptions {
  readonly size: Size
  readonly resample: number
  readonly imageBackend: ImageBackend
  readonly cropToPatches: boolean
  readonly minPatches: number
  readonly maxPatches: number
  readonly useThumbnail: boolean
}

/**
 * All grids of `min` to `max` tiles, sorted by number of tiles, then by number of columns.
 *
 * Source: `get_all_supported_aspect_ratios` (transformers 5.24). OpenGVLab's order differs for `min > 1` at exact ties.
 */
export const supportedGrids = (min: number, max: number): readonly Grid[] =>
  Array.from({ length: max }, (_, i) => i + 1)
    .flatMap((columns) => Array.from({ length: Math.floor(max / columns) }, (_, i) => ({ columns, rows: i + 1 })))
    .filter(({ columns, rows }) => min <= columns * rows)
    .sort((a, b) => a.columns * a.rows - b.columns * b.rows)

/**
 * The grid with the aspect ratio closest to that of an image; at a tie the one with more tiles, if the image has more than half
 * of the grid's pixels. 1 x 1 where no grid is within the bounds.
 *
 * Source: `get_optimal_tiled_canvas` (transformers 5.24).
 */
export const bestGrid = (image: Size, tile: Size, min: number, max: number): Grid => {
  const aspect = image.width / image.height
  const area = image.width * image.height
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

/** The grid of an image of a given size, without the thumbnail. */
export const gridOf = (image: Size, { size, cropToPatches, minPatches, maxPatches }: TilingOptions): Grid =>
  cropToPatches && maxPatches > 1 ? bestGrid(image, size, minPatches, maxPatches) : { columns: 1, rows: 1 }

/** Number of tiles of an image of a given size, including the thumbnail. */
export const countTiles = (image: Size, options: TilingOptions): number => {
  const { columns, rows } = gridOf(image, options)
  const tiles = columns * rows
  return tiles > 1 && options.useThumbnail ? tiles + 1 : tiles
}

/** Crops an image from pixel (`left`, `top`). */
export const crop = (image: Rgb, left: number, top: number, { width, height }: Size): Rgb => {
  const data = new Uint8Array(width * height * 3)
  for (let y = 0; y < height; y++) {
    const start = ((top + y) * image.width + left) * 3
    data.set(image.data.subarray(start, start + width * 3), y * width * 3)
  }
  return { data, width, height }
}

/**
 * Tiles of an image: the image is resized to the grid's size (which changes its aspect ratio) and cropped to tiles row by row. Where
 * there is more than one tile, a thumbnail of the whole image follows.
 *
 * Source: `crop_image_to_patches` of `GotOcr2ImageProcessor` and `GotOcr2ImageProcessorPil` (transformers 5.24).
 */
export const tilesOf = (image: Rgb, options: TilingOptions): readonly Rgb[] => {
  const { size, resample, useThumbnail } = options
  const { columns, rows } = gridOf(image, options)
  const resize = RESIZES[options.imageBackend]
  const canvas = resize(image, { width: size.width * columns, height: size.height * rows }, resample)
  if (columns * rows === 1) return [canvas]
  const tiles = Array.from({ length: columns * rows }, (_, i) =>
    crop(canvas, (i % columns) * size.width, Math.floor(i / columns) * size.height, size)
  )
  return useThumbnail ? [...tiles, resize(image, size, resample)] : tiles
}
