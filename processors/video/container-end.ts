import { type FileHandle, open } from 'node:fs/promises'

const bytesAt = async (file: FileHandle, position: number, length: number): Promise<Buffer> => {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, position)
  return buffer.subarray(0, bytesRead)
}

/** Where the last box of an mp4 or mov ends. Source: ISO/IEC 14496-12, 4.2; a size of 0 reaches to the end. */
const endOfBoxes = async (file: FileHandle, size: number): Promise<number> => {
  let at = 0
  while (at < size) {
    const head = await bytesAt(file, at, 16)
    if (head.length < 8) return at + 8
    if (!/^[\w ©]{4}$/.test(head.toString('latin1', 4, 8))) return at // no box: whatever else was appended
    const short = head.readUInt32BE(0)
    const length = short === 1 && head.length === 16 ? Number(head.readBigUInt64BE(8)) : short
    if (length === 0) return size
    if (length < 8) return at
    at += length
  }
  return at
}

/** The number at `at` in EBML's form, and the bytes it takes; all ones is a size unknown. Source: RFC 8794, 4. */
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

/** Where the segment of a webm or mkv ends; 0 when it does not say. */
const endOfSegment = (head: Buffer): number => {
  const [header, length] = vint(head, 4)
  const segment = 4 + length + header
  if (segment + 12 > head.length || head.readUInt32BE(segment) !== 0x18538067) return 0
  const [size, sizeLength] = vint(head, segment + 4)
  return size === 0 ? 0 : segment + 4 + sizeLength + size
}

/** Whether a GIF's last byte is its trailer, zeros after it passed over. */
const hasTrailer = async (file: FileHandle, size: number): Promise<boolean> =>
  (await bytesAt(file, Math.max(0, size - 64), 64)).findLast((byte) => byte !== 0) === 0x3b

/** The byte at which a film's container ends by its own headers; more than its `size` when it was cut short, 0 if it does not say. */
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
    return 0
  } finally {
    await file.close()
  }
}
