import { type FileHandle, open } from 'node:fs/promises'

const bytesAt = async (file: FileHandle, position: number, length: number): Promise<Buffer> => {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, position)
  return buffer.subarray(0, bytesRead)
}

/** End of the last box of an mp4 or mov file, in bytes; a box size of 0 extends to the end of the file. Source: ISO/IEC 14496-12, 4.2. */
const endOfBoxes = async (file: FileHandle, size: number): Promise<number> => {
  let at = 0
  while (at < size) {
    const head = await bytesAt(file, at, 16)
    if (head.length < 8) return at + 8
    if (!/^[\w ©]{4}$/.test(head.toString('latin1', 4, 8))) return at // not a box: trailing data after the last box
    const short = head.readUInt32BE(0)
    const length = short === 1 && head.length === 16 ? Number(head.readBigUInt64BE(8)) : short
    if (length === 0) return size
    if (length < 8) return at
    at += length
  }
  return at
}

/** Decodes the EBML variable-size integer at `at`; returns 0 for an unknown size (all ones). Source: RFC 8794, 4. */
const vint = (bytes: Buffer, at: number): readonly [value: number, length: number] => {
  const length = Math.clz32(bytes[at] ?? 0) - 23
  let value = (bytes[at] ?? 0) & (0xff >> length)
  let isUnknown = value === 0xff >> length
  for (let i = 1; i < length; i++) {
    value = value * 256 + (bytes[at + i] ?? 0)
    isUnknown &&= bytes[at + i] === 0xff
  }
  return [isUnknown ? 0 : value, length]
}

/** End of the segment of a webm or mkv file, in bytes; 0 where the header has no size. */
const endOfSegment = (head: Buffer): number => {
  const [header, length] = vint(head, 4)
  const segment = 4 + length + header
  if (segment + 12 > head.length || head.readUInt32BE(segment) !== 0x18538067) return 0
  const [size, sizeLength] = vint(head, segment + 4)
  return size === 0 ? 0 : segment + 4 + sizeLength + size
}

/** Whether a GIF ends with its trailer byte; zero padding after the trailer is ignored. */
const hasTrailer = async (file: FileHandle, size: number): Promise<boolean> =>
  (await bytesAt(file, Math.max(0, size - 64), 64)).findLast((byte) => byte !== 0) === 0x3b

const ASF_HEADER = Buffer.from('3026b2758e66cf11a6d900aa0062ce6c', 'hex')
const ASF_FILE_PROPERTIES = Buffer.from('a1dcab8c47a9cf118ee400c00c205365', 'hex')

/** File size in the header of a wmv or asf file; 0 where it has none, as in a live stream. Source: Advanced Systems Format, 3.2. */
const endOfAsf = (head: Buffer): number => {
  const at = head.indexOf(ASF_FILE_PROPERTIES)
  return at < 0 || at + 48 > head.length ? 0 : Number(head.readBigUInt64LE(at + 40))
}

const LARGEST_OGG_PAGE = 65_307 // bytes

/** End of the last page of an ogg file, which may be greater than the file; 0 where none is found. Source: RFC 3533, 6. */
const endOfOgg = async (file: FileHandle, size: number): Promise<number> => {
  const start = Math.max(0, size - LARGEST_OGG_PAGE)
  const tail = await bytesAt(file, start, LARGEST_OGG_PAGE)
  const at = tail.lastIndexOf('OggS')
  if (at < 0) return 0
  const segments = tail.subarray(at + 27, at + 27 + (tail[at + 26] ?? 0))
  const isCut = segments.length === 0 || segments.length < tail[at + 26]!
  return isCut ? size + 1 : start + at + 27 + segments.length + segments.reduce((sum, length) => sum + length, 0)
}

/** File length in bytes that a container's headers declare; greater than `size` for a truncated file, 0 where the headers do not tell. */
export const endOfContainer = async (path: string, size: number): Promise<number> => {
  const file = await open(path)
  try {
    const head = await bytesAt(file, 0, 128)
    const tag = head.toString('latin1', 4, 8)
    if (['ftyp', 'moov', 'mdat', 'wide', 'free', 'skip'].includes(tag)) return await endOfBoxes(file, size)
    if (head.length > 12 && head.readUInt32BE(0) === 0x1a45dfa3) return endOfSegment(head)
    if (head.length > 12 && head.toString('latin1', 0, 4) === 'RIFF')
      return head.readUInt32LE(4) === 0xffffffff ? 0 : 8 + head.readUInt32LE(4)
    if (head.toString('latin1', 0, 3) === 'GIF') return (await hasTrailer(file, size)) ? size : size + 1
    if (head.subarray(0, 16).equals(ASF_HEADER)) return endOfAsf(head)
    if (head.toString('latin1', 0, 4) === 'OggS') return await endOfOgg(file, size)
    return 0
  } finally {
    await file.close()
  }
}
