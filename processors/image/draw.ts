import { writeFile } from 'node:fs/promises'
import { extname } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import sharp, { type Sharp } from 'sharp'
import type { Issues } from '../../lib/error.js'
import { invalid } from '../collect.js'
import { type ImageSource, type OpenOptions, readImage } from './image.js'
import type { Rgb, Size } from './resize.js'

/** A rectangle with a name, in pixels of the picture; `right` and `bottom` are past its last column and row. */
export interface LabelledBox {
  readonly label: string
  readonly left: number
  readonly top: number
  readonly right: number
  readonly bottom: number
}

const colours = ['#e6194b', '#3cb44b', '#4363d8', '#f58231', '#911eb4', '#008080', '#9a6324', '#000075']

const escapeXml = (text: string): string => text.replace(/[&<>"']/g, (c) => `&#${c.codePointAt(0)};`).replace(/\p{Cc}/gu, ' ')

const frameOf = ({ label, left, top, right, bottom }: LabelledBox, colour: string, stroke: number, font: number): string => {
  const [width, height] = [Math.max(1, right - left), Math.max(1, bottom - top)]
  const baseline = top >= font * 1.4 ? top - font * 0.4 : top + font * 1.1
  const text = `x="${left + stroke}" y="${baseline}" font-family="sans-serif" font-size="${font}"`
  return [
    `<rect x="${left}" y="${top}" width="${width}" height="${height}" fill="none" stroke="${colour}" stroke-width="${stroke}"/>`,
    `<text ${text} fill="${colour}" stroke="white" stroke-width="${font / 5}" paint-order="stroke">${escapeXml(label)}</text>`
  ].join('')
}

/** Boxes of one label share a colour; lines and letters are as large as the picture needs. */
const overlay = (width: number, height: number, boxes: readonly LabelledBox[]): Buffer => {
  const labels = [...new Set(boxes.map(({ label }) => label))]
  const [stroke, font] = [Math.max(2, Math.min(width, height) / 150), Math.max(10, Math.min(width, height) / 25)]
  const frames = boxes.map((box) => frameOf(box, colours[labels.indexOf(box.label) % colours.length]!, stroke, font))
  return Buffer.from(`<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">${frames.join('')}</svg>`)
}

const fromRgb = ({ data, width, height }: Rgb): Sharp => sharp(data, { raw: { width, height, channels: 3 } })

/** A picture as a PNG file's bytes: every pixel as it is. */
export const encodePng = (image: Rgb): Promise<Buffer> => fromRgb(image).png().toBuffer()

/** A drawing in SVG as a PNG file's bytes on white, `scale` pixels for each of its own. */
export const svgToPng = (svg: string, scale = 2): Promise<Buffer> =>
  sharp(Buffer.from(svg), { density: 72 * scale })
    .flatten({ background: '#ffffff' })
    .png()
    .toBuffer()

/** The picture as it is after it was a JPEG file of a quality from 1 to 100, with colours at half the resolution as Pillow writes them. */
export const throughJpeg = async (image: Rgb, quality: number): Promise<Rgb> => {
  const jpeg = await fromRgb(image).jpeg({ quality, chromaSubsampling: '4:2:0' }).toBuffer()
  return { ...image, data: new Uint8Array(await sharp(jpeg).raw().toBuffer()) }
}

/** The picture with boxes drawn on it, as it stands upright. */
export const drawBoxes = async (image: Rgb, boxes: readonly LabelledBox[]): Promise<Rgb> => {
  const drawn = fromRgb(image).composite([{ input: overlay(image.width, image.height, boxes) }])
  const { data, info } = await drawn.removeAlpha().raw().toBuffer({ resolveWithObject: true })
  return { data: new Uint8Array(data), width: info.width, height: info.height }
}

const formats = ['png', 'jpg', 'jpeg', 'webp'] as const

/** The format that a file's name asks for. Errors: `Draw`, one that cannot be written. */
export const formatOf = (file: string): E.Either<Issues, (typeof formats)[number]> => {
  const format = formats.find((known) => extname(file).toLowerCase() === `.${known}`)
  return format ? E.right(format) : invalid('Draw', `${file}: pictures are written as .png, .jpg, .jpeg or .webp.`, { file })
}

/** Writes a picture in the format of the file's name. Errors: `Draw`, that format, or a folder that is not there. */
export const writePicture =
  (image: Rgb, file: string): TaskEither<Issues, void> =>
  async () => {
    const format = formatOf(file)
    if (E.isLeft(format)) return format
    try {
      await writeFile(
        file,
        await fromRgb(image)
          .toFormat(format.right === 'jpg' ? 'jpeg' : format.right)
          .toBuffer()
      )
      return E.right(undefined)
    } catch (error) {
      return invalid('Draw', `${file}: it cannot be written (${(error as Error).message}).`, { file })
    }
  }

/** Draws on a picture, in its own pixels, and writes it to a file. Errors: those of the picture, and of `writePicture`. */
export const drawOn =
  (
    source: ImageSource,
    boxesIn: (size: Size) => readonly LabelledBox[],
    file: string,
    options: OpenOptions = {}
  ): TaskEither<Issues, void> =>
  async () => {
    const image = await readImage(source, options)()
    return E.isLeft(image) ? image : writePicture(await drawBoxes(image.right, boxesIn(image.right)), file)()
  }
