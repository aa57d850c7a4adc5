import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import * as E from 'fp-ts/lib/Either.js'
import { demoModel } from '../../../generation/checkpoint/load.js'
import { orThrow } from '../../../lib/error.js'
import { IMAGE_BACKENDS, type ImageBackend, RESIZES } from '../../../processors/image/image-backend.js'
import { RESAMPLE, type Rgb } from '../../../processors/image/resize.js'
import { openImageTiles, openVideoTiles, type VisualInput } from '../../../processors/media/open-media.js'
import { loadProcessor } from '../../../processors/processor.js'
import { type ImageOptions, withOptions } from '../../../processors/processor-options.js'

type Checksums = Readonly<Record<ImageBackend, string>>
interface Resized extends Checksums {
  readonly number: number
  readonly size: readonly [number, number]
  readonly to: readonly [number, number]
  readonly resample: number
}
interface Processed extends Checksums, Required<Pick<ImageOptions, 'maxPatches' | 'doNormalize' | 'doRescale'>> {
  readonly number: number
  readonly size: readonly [number, number]
  readonly tile: number
  readonly tiles: number
  readonly video: string
}

/** Checksums of both backends of Transformers 5.24; written by reference/make_image_backends.py. */
const cases = JSON.parse(readFileSync(new URL('./image-backends.json', import.meta.url), 'utf8')) as {
  readonly resizes: readonly Resized[]
  readonly processed: readonly Processed[]
}

/** The image of a number: noise, black and white noise, or gradients. Source: `image` of reference/make_image_backends.py. */
const imageOf = (number: number, [width, height]: readonly [number, number]): Rgb => {
  const data = Uint8Array.from({ length: width * height * 3 }, (_, i) => {
    const pixel = Math.floor(i / 3)
    if (number % 3 === 2) return ((pixel % width) * ((i % 3) + 1) + Math.floor(pixel / width) * 2) % 256
    const hash = Math.imul(i + number * 7919, 2654435761) >>> 0
    const noise = Math.imul(hash ^ (hash >>> 15), 2246822519) >>> 24
    return number % 3 === 0 ? noise : noise > 127 ? 255 : 0
  })
  return { data, width, height }
}

const sha = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex').slice(0, 16)

const pixelsOf = async (visual: VisualInput): Promise<string> => {
  const out = new Float32Array(visual.tiles * 3 * visual.tileSize.width * visual.tileSize.height)
  await orThrow(visual.write(out, 0))
  return sha(new Uint8Array(out.buffer))
}

describe('image backends', () => {
  it('240 resizes have the bytes of torchvision and of Pillow, for every filter of torchvision', () => {
    for (const { number, size, to, resample, ...expected } of cases.resizes) {
      const image = imageOf(number, size)
      for (const backend of IMAGE_BACKENDS) {
        const { data } = RESIZES[backend](image, { width: to[0], height: to[1] }, resample)
        assert.equal(sha(data), expected[backend], `${number}: ${size} to ${to} by ${resample}, ${backend}`)
      }
    }
  })

  it('pixel values of tiles and frames are bit-equal to those of the image and video processors of Transformers', async () => {
    const { config } = await orThrow(loadProcessor(demoModel))
    for (const { number, size, tile, tiles, maxPatches, doNormalize, doRescale, video, ...expected } of cases.processed) {
      const channels = 3 as const
      for (const imageBackend of IMAGE_BACKENDS) {
        const settings = withOptions(config, { size: tile, maxPatches, doNormalize, doRescale, imageBackend })
        const visual = await orThrow(openImageTiles({ ...imageOf(number, size), channels }, settings.image, {}))
        assert.equal(visual.tiles, tiles)
        assert.equal(await pixelsOf(visual), expected[imageBackend], `${number}: ${size}, ${imageBackend}`)
        const frames = [number, number + 1].map((n) => ({ ...imageOf(n, size), channels }))
        const filmed = await orThrow(openVideoTiles(frames, undefined, settings.video, {}))
        assert.equal(await pixelsOf(filmed), video, `${number}: the frames of ${size}`)
      }
    }
  })

  it('torchvision is the default of every folder, and a folder, a call and a load may ask for Pillow', async () => {
    const [plain, pillow] = await Promise.all([
      orThrow(loadProcessor(demoModel)),
      orThrow(loadProcessor(demoModel, { imageBackend: 'pillow' }))
    ])
    assert.deepEqual([plain.config.image.imageBackend, pillow.config.image.imageBackend], ['torchvision', 'pillow'])
    assert.equal(withOptions(plain.config, { imageBackend: 'pillow' }).image.imageBackend, 'pillow')
    assert.equal(withOptions(pillow.config, {}).image.imageBackend, 'pillow')
  })

  it('names a backend that does not exist, and a filter that torchvision does not have', async () => {
    const loaded = await loadProcessor(demoModel, { imageBackend: 'opencv' as never })()
    assert.match(E.isLeft(loaded) ? loaded.left[0].message : '', /imageBackend: expected torchvision or pillow, got "?opencv/)
    const { prepare, config } = await orThrow(loadProcessor(demoModel))
    const image = { ...imageOf(0, [9, 9]), channels: 3 as const }
    const errorOf = async (options: ImageOptions): Promise<string> => {
      const prepared = await prepare([[{ role: 'user', content: [{ type: 'image', image }] }]], options)()
      return E.isLeft(prepared) ? prepared.left.map(({ message }) => message).join(' ') : 'no error'
    }
    assert.match(await errorOf({ imageBackend: 'opencv' as never }), /imageBackend: expected torchvision or pillow/)
    assert.match(await errorOf({ resample: RESAMPLE.box }), /resample: torchvision has no filter 4/)
    for (const rescaleFactor of [0, Number.NaN, Number.POSITIVE_INFINITY, '1/255' as never])
      assert.match(await errorOf({ rescaleFactor }), /rescaleFactor: expected a number other than 0, got /)
    assert.equal(await errorOf({ rescaleFactor: 0, doRescale: false }), 'no error')
    assert.equal(await errorOf({ resample: RESAMPLE.box, imageBackend: 'pillow', size: config.image.size }), 'no error')
    assert.throws(() => RESIZES.torchvision(imageOf(0, [9, 9]), { width: 3, height: 3 }, RESAMPLE.hamming), RangeError)
  })
})
