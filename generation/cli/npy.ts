/** Encodes float32 values as a NumPy file. Source: numpy.lib.format, version 1.0. */
export const npy = (values: Float32Array, shape: readonly number[]): Uint8Array => {
  const tuple = shape.length === 1 ? `${shape[0]},` : shape.join(', ')
  const header = `{'descr': '<f4', 'fortran_order': False, 'shape': (${tuple}), }`
  const length = Math.ceil((10 + header.length + 1) / 64) * 64 // the data is aligned
  const bytes = Buffer.alloc(length + values.byteLength, ' ')
  bytes.write('\x93NUMPY\x01\x00', 'latin1')
  bytes.writeUInt16LE(length - 10, 8)
  bytes.write(header, 10, 'latin1')
  bytes.write('\n', length - 1)
  bytes.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), length)
  return bytes
}
