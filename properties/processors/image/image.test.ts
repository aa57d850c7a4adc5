import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { crc32, deflateSync } from 'node:zlib'
import fc from 'fast-check'
import * as E from 'fp-ts/lib/Either.js'
import sharp from 'sharp'
import { type Issue, orThrow } from '../../../lib/error.js'
import { orient } from '../../../processors/image/codecs/orientation.js'
import { type ImageSource, isBase64Image, type OpenOptions, openImage, readImage } from '../../../processors/image/image.js'
import { loadProcessor, type PrepareOptions } from '../../../processors/processor.js'
import type { ImageItem, Messages } from '../../../processors/text/messages.js'
import { demo, imagePath, images } from '../cases.js'

const wrong = async (source: ImageSource, options?: OpenOptions): Promise<string> => {
  const result = await readImage(source, options)()
  return E.isLeft(result) ? result.left[0].message : 'no error'
}

const wrongIssue = async (messages: Messages, options: PrepareOptions): Promise<Issue> => {
  const result = await (await orThrow(loadProcessor(demo))).prepare([messages], options)()
  return E.isLeft(result) ? result.left[0] : { _tag: 'none', message: 'no error' }
}

/** A PNG whose header declares a size and whose data has no pixels. */
const pngOf = (width: number, height: number): Buffer => {
  const int = (n: number): Buffer => Buffer.from(Uint32Array.of(n).buffer).reverse()
  const chunk = (name: string, data: Buffer): Buffer => {
    const body = Buffer.concat([Buffer.from(name), data])
    return Buffer.concat([int(data.length), body, int(crc32(body))])
  }
  const header = chunk('IHDR', Buffer.concat([int(width), int(height), Buffer.from([8, 2, 0, 0, 0])]))
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a])
  return Buffer.concat([signature, header, chunk('IDAT', deflateSync(Buffer.alloc(9))), chunk('IEND', Buffer.alloc(0))])
}

describe('image', () => {
  let dir: string
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'images-'))
  })
  after(() => rmSync(dir, { recursive: true }))

  it("every file type has Pillow's RGB pixels, and its upright size is known from the header", async () => {
    for (const { name, ...expected } of images) {
      const opened = await orThrow(openImage(imagePath(name)))
      assert.deepEqual([opened.width, opened.height], [expected.width, expected.height], name)
      const image = await orThrow(opened.decode)
      assert.deepEqual([image.width, image.height], [expected.width, expected.height], name)
      assert.ok(Buffer.from(image.data).equals(expected.data), `${name}: other pixels than Pillow's`)
    }
  })

  it('reads every kind of image source', async () => {
    const path = imagePath('rgb.png')
    const file = readFileSync(path)
    const expected = await orThrow(readImage(path))
    const raw = { data: expected.data, width: expected.width, height: expected.height, channels: 3 as const }
    const sources: readonly ImageSource[] = [
      pathToFileURL(path),
      pathToFileURL(path).href,
      `data:image/png;base64,${file.toString('base64')}`,
      `data:image/png,${file.toString('hex').replaceAll(/../g, '%$&')}`,
      `data:image/png,${file.toString('base64')}`,
      file.toString('base64'),
      file.toString('base64').replaceAll(/.{76}/g, '$&\n'),
      file.toString('base64url'),
      file,
      new Uint8Array(file),
      new Uint8Array(file).buffer,
      new Blob([new Uint8Array(file)]),
      sharp(path),
      raw
    ]
    for (const source of sources) assert.deepEqual(await orThrow(readImage(source)), expected)
  })

  it('blends raw pixels over white by their alpha, as Transformers blends arrays, and expands grey', async () => {
    const raw = (channels: 1 | 2 | 4, data: number[]): ImageSource => ({
      data: Uint8Array.from(data),
      width: 1,
      height: 1,
      channels
    })
    const read = async (source: ImageSource): Promise<number[]> => [...(await orThrow(readImage(source))).data]
    assert.deepEqual(await read(raw(1, [5])), [5, 5, 5])
    assert.deepEqual(await read(raw(2, [5, 255])), [5, 5, 5])
    assert.deepEqual(await read(raw(4, [5, 6, 7, 255])), [5, 6, 7])
    assert.deepEqual(await read(raw(4, [5, 6, 7, 0])), [255, 255, 255])
    assert.deepEqual(await read(raw(4, [200, 0, 128, 64])), [242, 191, 223]) // torchvision 0.29, as is the next line
    assert.deepEqual(await read(raw(4, [128, 128, 128, 104])), [203, 203, 203])
  })

  it('reports files that are not images, and truncated images', async () => {
    const put = (name: string, bytes: Buffer | string): string => {
      writeFileSync(join(dir, name), bytes)
      return join(dir, name)
    }
    const noise = { data: Uint8Array.from({ length: 30_000 }, (_, i) => (i * i) >> 3), width: 100, height: 100 }
    const whole = sharp(noise.data, { raw: { ...noise, channels: 3 } })
    const [jpeg, png] = [await whole.clone().jpeg().toBuffer(), await whole.clone().png().toBuffer()]
    assert.match(await wrong(join(dir, 'none.png')), /none\.png: no such image/)
    assert.match(await wrong(dir), /a folder, not an image/)
    assert.match(await wrong(put('empty.png', '')), /empty\.png: the image is empty/)
    assert.match(await wrong(put('text.png', 'not an image')), /text\.png: not a readable image/)
    assert.match(
      await wrong(put('drawing.svg', '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')),
      /not a readable image \(an SVG drawing/
    )
    assert.match(await wrong(put('cut.jpg', jpeg.subarray(0, jpeg.length / 2))), /cut\.jpg: the image is damaged or truncated/)
    assert.match(await wrong(put('cut.png', png.subarray(0, png.length / 2))), /cut\.png: the image is damaged or truncated/)
    assert.match(await wrong(Buffer.alloc(0)), /empty/)
    assert.match(await wrong({ data: new Uint8Array(5), width: 1, height: 1, channels: 3 }), /5 bytes are not 1 x 1 x 3/)
    assert.match(await wrong('http://['), /^http:\/\/\[: could not be fetched: Invalid URL/)
    assert.match(await wrong('file://elsewhere/a.png'), /^file:\/\/elsewhere\/a\.png: not a path on this machine/)
    assert.match(await wrong('data:image/png,%00%f'), /^data URL: not a readable image/)
    for (const other of [null, 5, {}, [], { data: undefined }] as unknown as readonly ImageSource[])
      assert.match(await wrong(other), /An image is a path, a URL|raw pixels: 0 bytes/)
  })

  it('the error for a text that is no source names it and lists the possible sources, as load_image of Transformers does', async () => {
    const expected =
      /no such image\. It must be a URL that begins with http:\/\/ or https:\/\/, the path of a file, a data URL, or base64\.$/
    for (const text of ['', 'photo.png', 'photos/cat', 'http_cat.png', 'data', '\0', `${'x'.repeat(5000)}!`])
      assert.match(await wrong(text), expected)
    assert.ok((await wrong('!'.repeat(1e6))).length < 500, 'a long text is shortened')
    assert.match(await wrong('aGVsbG8gd29ybGQsIGhlbGxv'), expected, 'base64 of a text')
    assert.ok(isBase64Image(readFileSync(imagePath('rgb.jpg')).toString('base64')))
    for (const text of ['photo.jpg', 'images/cat', '', 'data:image/png;base64,iVBORw0KGgo='])
      assert.ok(!isBase64Image(text), text)
    assert.match(await wrong('data:image/png;base64,aGVsbG8='), /^data URL: not a readable image/)
  })

  it('an image item takes every kind of source under every name', async () => {
    const processor = await orThrow(loadProcessor(demo))
    const [path, base64] = [imagePath('rgb.png'), readFileSync(imagePath('rgb.png')).toString('base64')]
    const sources = [path, pathToFileURL(path).href, base64, `data:image/png;base64,${base64}`]
    const prepared = await Promise.all(
      (['image', 'url', 'path', 'base64'] as const).flatMap((name) =>
        sources.map(async (source) => {
          const content = [{ type: 'image', [name]: source } as ImageItem, { type: 'text', text: 'x' } as const]
          const inputs = await orThrow(processor.prepare([[{ role: 'user', content }]]))
          const sum = inputs.pixelValues!.sum().dataSync()[0]
          inputs.dispose()
          return sum
        })
      )
    )
    assert.equal(prepared.length, 16)
    assert.equal(new Set(prepared).size, 1)
  })

  it('names formats that are not read and says what to do', async () => {
    const tiff = readFileSync(imagePath('rgb.tiff'))
    tiff.writeUInt16LE(8, tiff.indexOf(Buffer.from([6, 1, 3, 0, 1, 0, 0, 0])) + 8) // photometric interpretation: CIELAB
    const alpha = readFileSync(imagePath('rgb.j2k'))
    alpha.writeUInt16BE(5, 40) // number of components
    const cases: readonly (readonly [Buffer | string, RegExp])[] = [
      [tiff, /a TIFF in CIELAB colours; convert it to RGB/],
      [alpha, /a JPEG 2000 image of 5 components; convert it to PNG/],
      ['8BPS\0\x01', /a Photoshop document \(PSD\); convert it to PNG or JPEG/],
      ['%PDF-1.7', /a PDF document/],
      ['<!DOCTYPE html><p>', /a web page \(HTML\), not an image/],
      ['\0\0\0\x18ftypisom\0\0\0\0', /a video or another file of the MPEG-4 family/],
      ['plain text', /unknown format; formats that are read: JPEG, PNG/]
    ]
    for (const [bytes, expected] of cases) assert.match(await wrong(Buffer.from(bytes as string, 'latin1')), expected)
  })

  it('decodes HEIC, with the colours of the image that pillow-heif encoded', async () => {
    const opened = await orThrow(openImage(imagePath('photo.heic')))
    const { data, width, height } = await orThrow(opened.decode)
    assert.deepEqual([opened.width, opened.height, width, height], [64, 48, 64, 48])
    let difference = 0
    for (let i = 0; i < data.length; i++) {
      const [x, y] = [((i / 3) | 0) % 64, (((i / 3) | 0) / 64) | 0]
      difference += Math.abs(data[i]! - [x * 4, y * 5, (x * 2 + y) % 256][i % 3]!)
    }
    assert.ok(difference / data.length < 3, `${difference / data.length} of 255 on average`)
    // the file stores the rows of the photo and a rotation by orientation 6
    const turned = await orThrow(readImage(imagePath('turned.heic')))
    const expected = orient({ data, width, height }, 6)
    assert.deepEqual([turned.width, turned.height], [48, 64])
    assert.ok(turned.data.reduce((sum, value, i) => sum + Math.abs(value - expected.data[i]!), 0) / data.length < 1)
  })

  it('a cut file of any format is an error', async () => {
    for (const { name } of images.filter(({ name }) => /(\.(bmp|tga|ico|p[bgp]m|pfm|jp2)|canvas.gif|grey.gif)$/.test(name))) {
      const bytes = readFileSync(imagePath(name))
      assert.match(
        await wrong(bytes.subarray(0, Math.floor(bytes.length * 0.6))),
        /^Buffer: (not a readable|the image is damaged)/,
        name
      )
    }
  })

  it('orientations are those of Exif: each is undone by its inverse, and sides change from 5 on', () => {
    const sizes = fc.tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 5 }))
    fc.assert(
      fc.property(sizes, fc.integer({ min: 1, max: 8 }), ([width, height], orientation) => {
        const image = { data: Uint8Array.from({ length: width * height * 3 }, (_, i) => i), width, height }
        const turned = orient(image, orientation)
        assert.deepEqual([turned.width, turned.height], orientation < 5 ? [width, height] : [height, width])
        assert.deepEqual(orient(turned, orientation === 6 ? 8 : orientation === 8 ? 6 : orientation), image)
      })
    )
  })

  describe('pixel limit', () => {
    /** A lossless WebP of 34 bytes that declares a size. Source: WebP Lossless Bitstream Specification, 3. */
    const webpOf = (width: number, height: number): Buffer => {
      const bytes = Buffer.alloc(34)
      bytes.write('RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f', 'latin1')
      bytes.writeUInt32LE((((height - 1) << 14) | (width - 1)) >>> 0, 21)
      return bytes
    }
    const sizes16 = (width: number, height: number): Buffer => Buffer.from(Uint16Array.of(width, height).buffer)
    const sizes32 = (width: number, height: number): Buffer => Buffer.from(Uint32Array.of(width, height).buffer)
    const huge: readonly (readonly [string, Buffer])[] = [
      ['png', pngOf(30_000, 30_000)],
      [
        'bmp',
        Buffer.concat([
          Buffer.from('BM'),
          Buffer.alloc(12),
          Buffer.from([40, 0, 0, 0]),
          sizes32(30_000, 30_000),
          Buffer.from([1, 0, 24, 0]),
          Buffer.alloc(24)
        ])
      ],
      [
        'tga',
        Buffer.concat([Buffer.from([0, 0, 10]), Buffer.alloc(9), sizes16(30_000, 30_000), Buffer.from([24, 0]), Buffer.alloc(9)])
      ],
      [
        'gif',
        Buffer.concat([
          Buffer.from('GIF89a'),
          sizes16(30_000, 30_000),
          Buffer.from([0, 0, 0, 0x2c, 0, 0, 0, 0]),
          sizes16(30_000, 30_000),
          Buffer.from([0, 2, 1, 0, 0, 0x3b])
        ])
      ],
      ['ppm', Buffer.from('P6 30000 30000 255\n')],
      ['pbm', Buffer.from('P4 30000 30000\n')]
    ]

    it("checks the header before decoding, at Pillow's limit by default", async () => {
      const path = join(dir, 'huge.png')
      writeFileSync(path, pngOf(30_000, 30_000))
      assert.match(await wrong(path), /30000 x 30000 pixels, more than the limit of 178956970/)
      assert.match(await wrong(imagePath('rgb.png'), { maxPixels: 100 }), /23 x 17 pixels, more than the limit of 100/)
      assert.match(
        await wrong(sharp(imagePath('rgb.png')), { maxPixels: 100 }),
        /sharp: 23 x 17 pixels, more than the limit of 100/
      )
      for (const [name, bytes] of huge) assert.match(await wrong(bytes), /30000 x 30000 pixels, more than the limit/, name)
    })

    it('refuses a WebP of 34 bytes and 13,000 x 13,000 pixels under a given limit, whose frames count together', async () => {
      assert.equal(webpOf(13_000, 13_000).length, 34)
      assert.match(
        await wrong(webpOf(13_000, 13_000), { maxPixels: 50e6 }),
        /13000 x 13000 pixels, more than the limit of 50000000/
      )
      const { message } = await wrongIssue([{ role: 'user', content: [{ type: 'image', image: webpOf(13_000, 13_000) }] }], {
        limits: { maxPixels: 50e6 }
      })
      assert.match(message, /more than the limit of 50000000/)
      for (const name of ['animated.gif', 'animated.webp'])
        assert.match(
          await wrong(imagePath(name), { maxPixels: 23 * 17 }),
          /23 x 17 x 2 frames pixels, more than the limit of 391/
        )
      assert.equal(await wrong(imagePath('animated.gif'), { maxPixels: 2 * 23 * 17 }), 'no error')
    })

    it('warns above 89,478,485 pixels, as Pillow does', async () => {
      const warned = new Promise<Error>((resolve) => process.once('warning', resolve))
      await orThrow(openImage(pngOf(10_000, 9000)))
      const { name, message } = await warned
      assert.equal(name, 'DecompressionBombWarning')
      assert.match(message, /10000 x 9000 pixels/)
    })
  })
})
