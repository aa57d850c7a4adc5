import { tidyDataSync } from '../../lib/data-sync.js'
import { bytesOf, type FloatDtype, fromFloat32, type StoredDtype, toFloat32 } from '../../lib/dtype.js'
import { dequantizePacked, packedRowLength, type QuantizationFormat } from '../../lib/quantization/formats.js'
import { quantizeChunk } from '../../lib/safetensors/upload.js'
import { tf } from '../../lib/tf.js'

type Pieces = AsyncIterable<Uint8Array>

/** Casts pieces of a tensor to another type. Pieces of the same type are copied bit for bit. */
export async function* castPieces(pieces: Pieces, from: StoredDtype, to: StoredDtype): AsyncGenerator<Uint8Array> {
  for await (const piece of pieces) yield from === to ? piece : fromFloat32(toFloat32(piece, from), to as FloatDtype)
}

/** Quantizes pieces of whole rows of `columns` weights to packed int32 rows. */
export async function* quantizePieces(
  pieces: Pieces,
  from: StoredDtype,
  columns: number,
  format: QuantizationFormat
): AsyncGenerator<Uint8Array> {
  for await (const piece of pieces) {
    const packed = await quantizeChunk(piece, from, columns, format)
    try {
      yield bytesOf(packed.dataSync())
    } finally {
      packed.dispose()
    }
  }
}

/** Dequantizes pieces of whole packed int32 rows to rows of `columns` weights of a type. */
export async function* dequantizePieces(
  pieces: Pieces,
  format: QuantizationFormat,
  columns: number,
  to: FloatDtype
): AsyncGenerator<Uint8Array> {
  for await (const piece of pieces) {
    const packed = new Int32Array(piece.slice().buffer)
    const width = packedRowLength(format, columns)
    const shape: [number, number] = [packed.length / width, width]
    const weights = tidyDataSync(() => dequantizePacked(format, tf.tensor2d(packed, shape, 'int32'), columns))
    yield fromFloat32(weights as Float32Array, to)
  }
}
