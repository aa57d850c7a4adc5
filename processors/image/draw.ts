import { writeFile } from 'node:fs/promises'
import { extname } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import sharp, { type Sharp } from 'sharp'
import { type Issues, invalid, issue } from '../../lib/error.js'
import { type ImageSource, type OpenOptions, readImage } from './image.js'
import type { Rgb, Size } from './resize.js'
import { escapeXml } from './strip.js'

/** A labelled bounding box in pixels of the image; `right` and `bottom` are exclusive. */
export interface LabelledBox {
  readonly label: string
  readonly left: number
  readonly top: number
  readonly right: number
  readonly bottom: number
}

const colours = ['#e6194b', '#3cb44b', '#4363d8', '#f58231', '#911eb4', '#008080', '#9a6324', '#000075']

const boxSvg = ({ label, left, top, right, bottom }: LabelledBox, colour: string, stroke: number, font: number): string => {
  const [width, height] = [Math.max(1, right - left), Math.max(1, bottom - top)]
  const baseline = top >= font * 1.4 ? top - font * 0.4 : top + font * 1.1
  const text = `x="${left + stroke}" y="${baseline}" font-family="sans-serif" font-size="${font}"`
  return [
    `<rect x="${left}" y="${top}" width="${width}" height="${height}" fill="none" stroke="${colour}" stroke-width="${stroke}"/>`,
    `<text ${text} fill="${colour}" stroke="white" stroke-width="${font / 5}" paint-order="stroke">${escapeXml(label)}</text>`
  ].join('')
}

/** SVG overlay of boxes, one colour per label; line width and font size scale with the image. */
const overlay = (width: number, height: number, boxes: readonly LabelledBox[]): Buffer => {
  const labels = [...new Set(boxes.map(({ label }) => label))]
  const [stroke, font] = [Math.max(2, Math.min(width, height) / 150), Math.max(10, Math.min(width, height) / 25)]
  const frames = boxes.map((box) => boxSvg(box, colours[labels.indexOf(box.label) % colours.length]!, stroke, font))
  return Buffer.from(`<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">${frames.join('')}</svg>`)
}

const fromRgb = ({ data, width, height }: Rgb): Sharp => sharp(data, { raw: { width, height, channels: 3 } })

/** Encodes an image as PNG (lossless). */
export const encodePng = (image: Rgb): Promise<Buffer> => fromRgb(image).png().toBuffer()

/** Encodes an image as JPEG, reduced to `side` pixels on its longer side where it is larger. */
export const encodeThumbnail = (image: Rgb, side: number): Promise<Buffer> =>
  fromRgb(image).resize({ width: side, height: side, fit: 'inside', withoutEnlargement: true }).jpeg({ quality: 75 }).toBuffer()

/** Renders SVG to PNG on white, with `scale` pixels per SVG pixel. */
export const svgToPng = (svg: string, scale = 2): Promise<Buffer> =>
  sharp(Buffer.from(svg), { density: 72 * scale })
    .flatten({ background: '#ffffff' })
    .png()
    .toBuffer()

/** Encodes an image as JPEG with a quality from 1 to 100 and 4:2:0 chroma subsampling (Pillow's default), and decodes it again. */
export const throughJpeg = async (image: Rgb, quality: number): Promise<Rgb> => {
  const jpeg = await fromRgb(image).jpeg({ quality, chromaSubsampling: '4:2:0' }).toBuffer()
  return { ...image, data: new Uint8Array(await sharp(jpeg).raw().toBuffer()) }
}

/** Draws boxes on an image. */
export const drawBoxes = async (image: Rgb, boxes: readonly LabelledBox[]): Promise<Rgb> => {
  const drawn = fromRgb(image).composite([{ input: overlay(image.width, image.height, boxes) }])
  const { data, info } = await drawn.removeAlpha().raw().toBuffer({ resolveWithObject: true })
  return { data: new Uint8Array(data), width: info.width, height: info.height }
}

const formats = ['png', 'jpg', 'jpeg', 'webp'] as const

/** Image format by file extension. Errors: `Draw`, an extension that cannot be written. */
export const imageFormatOf = (file: string): E.Either<Issues, (typeof formats)[number]> => {
  const format = formats.find((known) => extname(file).toLowerCase() === `.${known}`)
  return format ? E.right(format) : invalid('Draw', `${file}: images are written as .png, .jpg, .jpeg or .webp.`, { file })
}

/** Writes an image in the format of the file extension. Errors: `Draw`, an unknown extension, or a file that cannot be written. */
export const writeImageFile = (image: Rgb, file: string): TE.TaskEither<Issues, void> =>
  pipe(
    TE.fromEither(imageFormatOf(file)),
    TE.chain((format) =>
      TE.tryCatch(
        async () =>
          writeFile(
            file,
            await fromRgb(image)
              .toFormat(format === 'jpg' ? 'jpeg' : format)
              .toBuffer()
          ),
        (error): Issues => [issue('Draw', `${file}: it cannot be written (${E.toError(error).message}).`, { file })]
      )
    )
  )

/** Draws boxes, in pixels of the image, and writes the result to a file. Errors: those of `readImage` and `writeImageFile`. */
export const drawOn = (
  source: ImageSource,
  boxesIn: (size: Size) => readonly LabelledBox[],
  file: string,
  options: OpenOptions = {}
): TE.TaskEither<Issues, void> =>
  pipe(
    readImage(source, options),
    TE.chain((image) => TE.fromTask(() => drawBoxes(image, boxesIn(image)))),
    TE.chain((drawn) => writeImageFile(drawn, file))
  )
