import assert from 'node:assert/strict'
import fc from 'fast-check'
import { RESAMPLE } from '../../../processors/image/resize.js'
import { bestGrid, countTiles, crop, supportedGrids, type TilingOptions, tilesOf } from '../../../processors/image/tiling.js'
import { bounds, images, sizes } from '../../arbitraries/images.js'
import { cases } from '../cases.js'

const options = (over: Partial<TilingOptions> = {}): TilingOptions => ({
  size: { width: 8, height: 8 },
  resample: RESAMPLE.bicubic,
  imageBackend: 'torchvision',
  cropToPatches: true,
  minPatches: 1,
  maxPatches: 12,
  useThumbnail: true,
  ...over
})

describe('tiling', () => {
  it('counts tiles as Transformers does, including exact ties of the aspect ratio', () => {
    for (const [height, width, minPatches, maxPatches, expected] of cases.tile_counts) {
      const tiling = options({ size: { width: 448, height: 448 }, minPatches, maxPatches })
      assert.equal(countTiles({ width, height }, tiling), expected, `${height} x ${width}, ${minPatches} to ${maxPatches}`)
    }
  })

  it('orders grids as Transformers does', () => {
    const grids = supportedGrids(1, 4).map(({ columns, rows }) => [columns, rows])
    assert.deepEqual(grids, [[1, 1], [1, 2], [2, 1], [1, 3], [3, 1], [1, 4], [2, 2], [4, 1]]) // biome-ignore format: a table
  })

  it('the number of tiles is within the bounds, and no other grid is closer to the aspect ratio', () => {
    fc.assert(
      fc.property(sizes(3000), sizes(100), bounds(20), (image, tile, [min, max]) => {
        const best = bestGrid(image, tile, min, max)
        const distance = (grid: typeof best): number => Math.abs(image.width / image.height - grid.columns / grid.rows)
        assert.ok(min <= best.columns * best.rows && best.columns * best.rows <= max)
        assert.ok(supportedGrids(min, max).every((grid) => distance(best) <= distance(grid)))
      })
    )
  })

  it('an image of the size of its grid equals its tiles side by side, with the thumbnail last', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 4 }),
        fc.infiniteStream(fc.nat(255)),
        (columns, rows, noise) => {
          const size = { width: 3, height: 3 } // square, so that the aspect ratio determines the grid
          const [width, height] = [columns * size.width, rows * size.height]
          const data = Uint8Array.from(noise.take(width * height * 3))
          const image = { data, width, height }
          const tiles = tilesOf(image, options({ size, minPatches: columns * rows, maxPatches: columns * rows }))
          const grid = bestGrid(image, size, columns * rows, columns * rows)
          assert.equal(tiles.length, columns * rows === 1 ? 1 : columns * rows + 1)
          assert.deepEqual(grid, { columns, rows })
          for (let i = 0; i < columns * rows; i++) {
            const [left, top] = [(i % columns) * size.width, Math.floor(i / columns) * size.height]
            assert.deepEqual(tiles[i], crop(image, left, top, size))
          }
        }
      )
    )
  })

  it('the number of tiles equals the count, and every tile has the requested size', () => {
    fc.assert(
      fc.property(
        images(20),
        bounds(6),
        fc.boolean(),
        fc.boolean(),
        (image, [minPatches, maxPatches], cropToPatches, useThumbnail) => {
          const tiling = options({ minPatches, maxPatches, cropToPatches, useThumbnail })
          const tiles = tilesOf(image, tiling)
          assert.equal(tiles.length, countTiles(image, tiling))
          assert.ok(tiles.every(({ width, height, data }) => width === 8 && height === 8 && data.length === 192))
        }
      )
    )
  })
})
