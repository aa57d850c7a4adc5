import type { Metadata } from 'sharp'
import type { Rgb, Size } from '../resize.js'

/**
 * Orientation from 1 to 8 that XMP metadata tells where Exif has none; 1 else.
 *
 * Source: `Image.getexif` (Pillow 13), which searches the packet by a regular expression.
 */
export const xmpOrientation = ({ orientation, xmp }: Pick<Metadata, 'orientation' | 'xmp'>): number => {
  if (orientation !== undefined) return 1
  const stated = /tiff:Orientation(?:="|>)([0-9])/.exec(xmp?.toString('latin1') ?? '')?.[1]
  const number = Number(stated ?? 1)
  return number >= 1 && number <= 8 ? number : 1
}

/** The size of an image after `orient`. */
export const uprightSize = ({ width, height }: Size, orientation: number): Size =>
  orientation < 5 ? { width, height } : { width: height, height: width }

/** Turns an image upright. Source: `ImageOps.exif_transpose` (Pillow 13), Exif 2.32, tag 0x0112. */
export const orient = (image: Rgb, orientation: number): Rgb => {
  if (orientation === 1) return image
  const { width, height } = uprightSize(image, orientation)
  const data = new Uint8Array(image.data.length)
  const [isMirrored, isFlipped] = [[2, 3, 7, 8].includes(orientation), [3, 4, 6, 7].includes(orientation)]
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const [column, row] = orientation < 5 ? [x, y] : [y, x]
      const fromX = isMirrored ? image.width - 1 - column : column
      const fromY = isFlipped ? image.height - 1 - row : row
      const from = (fromY * image.width + fromX) * 3
      data.set(image.data.subarray(from, from + 3), (y * width + x) * 3)
    }
  return { data, width, height }
}
