import assert from 'node:assert/strict'
import fc from 'fast-check'
import { IMAGE_BACKENDS } from '../../../processors/image/image-backend.js'
import { normalizeTable, writeTile } from '../../../processors/image/normalize.js'
import { images } from '../../arbitraries/images.js'

const IMAGENET = {
  doRescale: true,
  rescaleFactor: 1 / 255,
  doNormalize: true,
  mean: [0.485, 0.456, 0.406],
  std: [0.229, 0.224, 0.225]
}

const backends = fc.constantFrom(...IMAGE_BACKENDS)

describe('normalize', () => {
  it('is (x / 255 - mean) / std in float32; either step can be disabled', () => {
    const close = (a: number, b: number): void =>
      assert.ok(Math.abs(a - b) <= 1e-6 * Math.max(1, Math.abs(b)), `${a} is not ${b}`)
    fc.assert(
      fc.property(
        fc.nat(255),
        fc.nat(2),
        fc.boolean(),
        fc.boolean(),
        backends,
        (value, channel, doRescale, doNormalize, backend) => {
          const x = doRescale ? value / 255 : value
          const expected = doNormalize ? (x - IMAGENET.mean[channel]!) / IMAGENET.std[channel]! : x
          close(normalizeTable({ ...IMAGENET, doRescale, doNormalize }, backend)[channel]![value]!, expected)
        }
      )
    )
  })

  it('writes channels first and nothing outside of the tile, and a pixel can be read back', () => {
    const table = normalizeTable(IMAGENET, 'torchvision')
    fc.assert(
      fc.property(images(9), fc.nat(5), (image, offset) => {
        const length = image.data.length
        const out = new Float32Array(offset + length + 4).fill(7)
        writeTile(out, offset, image, table)
        assert.ok(out.subarray(0, offset).every((v) => v === 7) && out.subarray(offset + length).every((v) => v === 7))
        image.data.forEach((value, i) => {
          const [pixel, channel] = [Math.floor(i / 3), i % 3]
          const x = out[offset + channel * (length / 3) + pixel]!
          assert.ok(Math.abs((x * IMAGENET.std[channel]! + IMAGENET.mean[channel]!) * 255 - value) < 1e-3)
        })
      })
    )
  })
})
