import { dtypeBytes, fromFloat32 } from '../../lib/dtype.js'
import { dequantizeMxfp4 } from '../../lib/quantization/mxfp4.js'
import type { Part, Planned } from './fuse.js'

/** Reads bytes `[begin, end)` of a stored tensor into `into`, which has that length; without `into`, into new memory. */
export type ReadRange = (source: string, begin: number, end: number, into?: Uint8Array) => Promise<Uint8Array>

/** Most bytes of a piece, unless one row has more. A matrix of the released 1B shapes is one piece, which needs no second copy. */
const pieceBytes = 9 * 2 ** 20

/** Dequantizes MXFP4 one expert at a time, so that only one is in memory in full. */
async function* dequantizedExperts({ parts, mxfp4 }: Planned, read: ReadRange): AsyncGenerator<Uint8Array> {
  const [experts, out, groups] = mxfp4!
  const readExpert = ({ source, begin, end }: Part, e: number) => {
    const bytes = (end - begin) / experts
    return read(source, begin + e * bytes, begin + (e + 1) * bytes)
  }
  const [blocks, scales] = parts as readonly [Part, Part]
  for (let e = 0; e < experts; e++)
    yield fromFloat32(dequantizeMxfp4(await readExpert(blocks, e), await readExpert(scales, e), [1, out, groups]), 'BF16')
}

/** The parts split into pieces of whole rows of the last axis. */
const splitParts = ({ parts, dtype, shape }: Planned): readonly Part[] => {
  const rowBytes = Math.max(1, (shape.at(-1) ?? 1) * dtypeBytes[dtype])
  const most = Math.max(1, Math.floor(pieceBytes / rowBytes)) * rowBytes
  return parts.flatMap(({ source, begin, end }) =>
    Array.from({ length: Math.ceil((end - begin) / most) }, (_, i) => ({
      source,
      begin: begin + i * most,
      end: Math.min(end, begin + (i + 1) * most)
    }))
  )
}

/** A reusable buffer, which grows to the largest piece. */
const reusableBuffer = () => {
  let memory = new Uint8Array(0)
  return (bytes: number): Uint8Array => {
    if (memory.byteLength < bytes) memory = new Uint8Array(bytes)
    return memory.subarray(0, bytes)
  }
}

/**
 * Reads planned tensors piece by piece: whole rows of about 9 MiB, or one expert of MXFP4. Pieces share two buffers: a piece is
 * valid until the next one is requested. The next piece is read while one is used.
 */
export const pieceReader = (read: ReadRange) => {
  const buffers = [reusableBuffer(), reusableBuffer()] as const
  return async function* (planned: Planned): AsyncGenerator<Uint8Array> {
    if (planned.mxfp4) return yield* dequantizedExperts(planned, read)
    const parts = splitParts(planned)
    const start = (i: number) => {
      const { source, begin, end } = parts[i]!
      return read(source, begin, end, buffers[i % 2]!(end - begin))
    }
    let next = parts.length > 0 ? start(0) : undefined
    for (let i = 0; next; i++) {
      const piece = await next
      next = i + 1 < parts.length ? start(i + 1) : undefined
      next?.catch(() => {}) // a failure is thrown when the piece is awaited
      yield piece
    }
  }
}

/** Length of a planned tensor, in bytes. */
export const plannedBytes = ({ dtype, shape }: Planned): number => shape.reduce((n, side) => n * side, dtypeBytes[dtype])

/** The bytes of a planned tensor, in new memory. */
export const readPlanned = async (planned: Planned, read: ReadRange): Promise<Uint8Array> => {
  const [first, ...more] = planned.parts
  if (first && more.length === 0) return read(first.source, first.begin, first.end)
  const bytes = new Uint8Array(plannedBytes(planned))
  let offset = 0
  for await (const piece of pieceReader((source, begin, end) => read(source, begin, end))(planned)) {
    bytes.set(piece, offset)
    offset += piece.byteLength
  }
  return bytes
}
