/**
 * The first value of a tag in a TIFF's first directory, as 16 bits; undefined where the tag is missing. Big TIFFs are not searched.
 *
 * Source: TIFF 6.0, section 2.
 */
export const tiffValue = (bytes: Buffer, tag: number): number | undefined => {
  const isLittle = bytes.toString('latin1', 0, 2) === 'II'
  const read16 = (at: number): number => (isLittle ? bytes.readUInt16LE(at) : bytes.readUInt16BE(at))
  if (bytes.length < 10 || read16(2) !== 42) return undefined
  const start = 2 + (isLittle ? bytes.readUInt32LE(4) : bytes.readUInt32BE(4))
  if (start > bytes.length) return undefined
  const count = Math.min(read16(start - 2), Math.floor((bytes.length - start) / 12))
  const entry = Array.from({ length: count }, (_, i) => start + i * 12).find((at) => read16(at) === tag)
  return entry === undefined ? undefined : read16(entry + 8)
}
