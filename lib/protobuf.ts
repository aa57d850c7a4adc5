/** A field of a protobuf message: a number, or bytes. */
export type ProtobufField = readonly [number: number, value: number | Uint8Array]

/** Reads variable-length integers one after another; `position` is that of the next byte. */
const varintReader = (view: DataView, state: { position: number }) => (): number => {
  let value = 0
  for (let factor = 1; ; factor *= 128) {
    const byte = view.getUint8(state.position++)
    value += (byte & 127) * factor
    if (byte < 128) return value
    if (factor > 2 ** 63) throw new RangeError('a number has too many bytes')
  }
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** The fields of a protobuf message in order. Throws a `RangeError` for bytes that are not one. */
export function* protobufFields(bytes: Uint8Array): Generator<ProtobufField> {
  const view = viewOf(bytes)
  const state = { position: 0 }
  const varint = varintReader(view, state)
  const take = (length: number): number => {
    state.position += length
    return state.position - length
  }
  while (state.position < bytes.length) {
    const tag = varint()
    const [number, wire] = [Math.floor(tag / 8), tag % 8]
    if (wire === 0) yield [number, varint()]
    else if (wire === 5) yield [number, view.getFloat32(take(4), true)]
    else if (wire === 1) yield [number, view.getFloat64(take(8), true)]
    else if (wire === 2) {
      const length = varint()
      if (state.position + length > bytes.length) throw new RangeError(`a field of ${length} bytes is longer than the file`)
      const start = take(length)
      yield [number, bytes.subarray(start, start + length)]
    } else throw new RangeError(`a field has the unknown wire type ${wire}`)
  }
}

/** The integers of a packed repeated field. */
export const protobufIntegers = (bytes: Uint8Array): readonly number[] => {
  const state = { position: 0 }
  const varint = varintReader(viewOf(bytes), state)
  const values: number[] = []
  while (state.position < bytes.length) values.push(varint())
  return values
}

/** A field to write: a whole number from 0, a string, bytes, or the fields of a nested message. */
export type ProtobufValue = readonly [number: number, value: number | string | Uint8Array | readonly ProtobufValue[]]

const varintBytes = (value: number): readonly number[] => {
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`protobuf: expected a whole number from 0, got ${value}`)
  return value < 128 ? [value] : [(value % 128) + 128, ...varintBytes(Math.floor(value / 128))]
}

/** The bytes of a protobuf message, its fields in order. Throws a `RangeError` for a number that is negative or not whole. */
export const protobufMessage = (fields: readonly ProtobufValue[]): Uint8Array =>
  Buffer.concat(
    fields.map(([number, value]) => {
      if (typeof value === 'number') return Buffer.from([...varintBytes(number * 8), ...varintBytes(value)])
      const bytes = typeof value === 'string' ? Buffer.from(value) : value instanceof Uint8Array ? value : protobufMessage(value)
      return Buffer.concat([Buffer.from([...varintBytes(number * 8 + 2), ...varintBytes(bytes.length)]), bytes])
    })
  )
