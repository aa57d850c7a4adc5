import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { crc32, deflateSync } from 'node:zlib'
import * as E from 'fp-ts/lib/Either.js'
import sharp from 'sharp'
import { orThrow } from '../../../lib/error.js'
import { type ImageSource, type OpenOptions, openImage, readImage } from '../../../processors/image/image.js'
import { imagePath, images } from '../cases.js'

const wrong = async (source: ImageSource, options?: OpenOptions): Promise<string> => {
  const result = await readImage(source, options)()
  return E.isLeft(result) ? result.left[0].message : 'no error'
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
      file,
      new Uint8Array(file),
      new Uint8Array(file).buffer,
      new Blob([new Uint8Array(file)]),
      sharp(path),
      raw
    ]
    for (const source of sources) assert.deepEqual(await orThrow(readImage(source)), expected)
  })

  it('drops alpha and expands grey of raw pixels', async () => {
    const raw = (channels: 1 | 2 | 4, data: number[]): ImageSource => ({
      data: Uint8Array.from(data),
      width: 1,
      height: 1,
      channels
    })
    const read = async (source: ImageSource): Promise<number[]> => [...(await orThrow(readImage(source))).data]
    assert.deepEqual(await read(raw(1, [5])), [5, 5, 5])
    assert.deepEqual(await read(raw(2, [5, 9])), [5, 5, 5])
    assert.deepEqual(await read(raw(4, [5, 6, 7, 9])), [5, 6, 7])
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
      /not a readable image.*svg/
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

  it('checks the pixel limit from the header', async () => {
    const path = join(dir, 'huge.png')
    writeFileSync(path, pngOf(30_000, 30_000))
    assert.match(await wrong(path), /30000 x 30000 pixels, more than the limit of 178956970/)
    assert.match(await wrong(imagePath('rgb.png'), { maxPixels: 100 }), /23 x 17 pixels, more than the limit of 100/)
  })
})
