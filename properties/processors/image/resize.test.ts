import assert from 'node:assert/strict'
import fc from 'fast-check'
import { RESAMPLE, type Rgb, resize, resizeTorchvision } from '../../../processors/image/resize.js'
import { images, plain, sizes } from '../../arbitraries/images.js'
import { cases } from '../cases.js'

const filters = fc.constantFrom(...Object.values(RESAMPLE))
const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'base64'))
const transposed = ({ data, width, height }: Rgb): Rgb => ({
  width: height,
  height: width,
  data: Uint8Array.from(data, (_, i) => {
    const [pixel, channel] = [Math.floor(i / 3), i % 3]
    return data[((pixel % height) * width + Math.floor(pixel / height)) * 3 + channel]!
  })
})

describe('resize', () => {
  it("gives Pillow's bytes for every filter, and torchvision's for frames", () => {
    for (const { size, to, resample, torchvision, pixels, expected } of cases.resizes) {
      const image = { data: bytes(pixels), width: size[0], height: size[1] }
      const out = (torchvision ? resizeTorchvision : resize)(image, { width: to[0], height: to[1] }, resample)
      assert.deepEqual(out.data, bytes(expected), `${size} to ${to} by ${resample}${torchvision ? ' as torchvision' : ''}`)
    }
  })

  it('to its own size is the image itself', () => {
    fc.assert(fc.property(images(12), filters, (image, filter) => assert.equal(resize(image, image, filter), image)))
  })

  it('an image of one colour keeps the colour', () => {
    fc.assert(
      fc.property(plain(12), sizes(20), filters, (image, size, filter) => {
        const { data } = resize(image, size, filter)
        assert.ok(data.length === size.width * size.height * 3 && data.every((value, i) => value === image.data[i % 3]))
      })
    )
  })

  it('along one axis commutes with exchanging the axes', () => {
    fc.assert(
      fc.property(images(12), fc.integer({ min: 1, max: 20 }), filters, (image, width, filter) => {
        const wide = resize(image, { width, height: image.height }, filter)
        const tall = resize(transposed(image), { width: image.height, height: width }, filter)
        assert.deepEqual(transposed(tall).data, wide.data)
      })
    )
  })

  it('refuses a filter that Pillow does not have', () => {
    assert.throws(() => resize({ data: new Uint8Array(3), width: 1, height: 1 }, { width: 2, height: 2 }, 9), RangeError)
  })
})
