import { type FloatDtype, fromFloat32, type StoredDtype, toFloat32 } from '../../lib/dtype.js'
import { numbersOf } from '../../lib/numbers.js'
import { type Form, rowWords, unpackWords } from '../../lib/quantization/formats.js'
import { packPiece } from '../../lib/safetensors/upload.js'
import { tf } from '../../lib/tf.js'

type Pieces = AsyncIterable<Uint8Array>

const bytesOf = ({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength)

/** Pieces of a tensor in another type. The same type is copied bit for bit. */
export async function* retyped(pieces: Pieces, from: StoredDtype, to: StoredDtype): AsyncGenerator<Uint8Array> {
  for await (const piece of pieces) yield from === to ? piece : fromFloat32(toFloat32(piece, from), to as FloatDtype)
}

/** Pieces of whole rows of `columns` weights as rows of words in a form. */
export async function* packed(pieces: Pieces, from: StoredDtype, columns: number, form: Form): AsyncGenerator<Uint8Array> {
  for await (const piece of pieces) {
    const words = await packPiece(piece, from, columns, form)
    const bytes = bytesOf(words.dataSync())
    words.dispose()
    yield bytes
  }
}

/** Pieces of whole rows of words as rows of `columns` weights in a type. */
export async function* unpacked(pieces: Pieces, form: Form, columns: number, to: FloatDtype): AsyncGenerator<Uint8Array> {
  for await (const piece of pieces) {
    const words = new Int32Array(piece.slice().buffer)
    const width = rowWords(form, columns)
    const shape: [number, number] = [words.length / width, width]
    const weights = numbersOf(() => unpackWords(form, tf.tensor2d(words, shape, 'int32'), columns))
    yield fromFloat32(weights as Float32Array, to)
  }
}
