import assert from 'node:assert/strict'
import { existsSync, readFileSync, readlinkSync, rmSync } from 'node:fs'
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { dtypeBytes, type StoredDtype, toFloat32 } from '../../../lib/dtype.js'
import { formatOf, kernelFormats, type QuantizedWeight, quantize } from '../../../lib/quantization/formats.js'
import { type Chunks, uploadChunks, uploadPackedRange, uploadRange } from '../../../lib/safetensors/upload.js'
import { tf } from '../../../lib/tf.js'
import { checkAsync } from '../../laws/check.js'

/** Bytes in chunks of `size` bytes; every chunk uses the same buffer, which is overwritten afterwards. */
async function* inChunks(bytes: Uint8Array, size: number): Chunks {
  const memory = new Uint8Array(size)
  for (let at = 0; at < bytes.length; at += size) {
    const piece = memory.subarray(0, Math.min(size, bytes.length - at))
    piece.set(bytes.subarray(at, at + size))
    yield piece
    memory.fill(255)
  }
}

const samples = fc.record({
  shape: fc.oneof(
    fc.tuple(fc.integer({ min: 1, max: 9 })),
    fc.tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 5 })),
    fc.tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 5 }))
  ),
  dtype: fc.constantFrom<StoredDtype>('F32', 'BF16', 'F16', 'F64', 'U8'),
  rows: fc.integer({ min: 1, max: 4 }),
  seed: fc.nat(1000)
})

describe('uploading stored tensors', () => {
  it('chunks of any number of rows give the tensor of the bytes, and leave no other tensor', () =>
    checkAsync(
      samples,
      async ({ shape, dtype, rows, seed }) => {
        const size = shape.reduce((a, b) => a * b, 1)
        const exponents = [0x3c, 0xbc, 0x40] // no NaN in any type, so that values can be compared
        const bytes = Uint8Array.from({ length: size * dtypeBytes[dtype] }, (_, i) =>
          (i + 1) % dtypeBytes[dtype] ? (i * 37 + seed) % 256 : exponents[(i + seed) % 3]!
        )
        const before = tf.memory().numTensors
        const tensor = await uploadChunks(inChunks(bytes, rows * shape.at(-1)! * dtypeBytes[dtype]), dtype, shape)
        assert.deepEqual(tensor.shape, shape)
        assert.deepEqual(tensor.dataSync(), toFloat32(bytes, dtype))
        tensor.dispose()
        assert.equal(tf.memory().numTensors, before)
      },
      100
    ))

  it('a read that fails midway leaves no tensor', async () => {
    const before = tf.memory().numTensors
    const failing = async function* (): Chunks {
      yield new Uint8Array(8)
      throw new Error('cut short')
    }
    await assert.rejects(uploadChunks(failing(), 'F32', [4, 2]), /cut short/)
    assert.equal(tf.memory().numTensors, before)
  })
})

/** Asserts equal values bit for bit; any NaN equals any other NaN. */
const sameBits = (actual: Float32Array, expected: Float32Array): void => {
  const bits = ({ buffer, byteOffset, length }: Float32Array) => new Uint32Array(buffer, byteOffset, length)
  const [a, b] = [bits(actual), bits(expected.slice())]
  assert.equal(a.length, b.length)
  const at = a.findIndex((word, i) => word !== b[i] && !(Number.isNaN(actual[i]) && Number.isNaN(expected[i])))
  assert.equal(at, -1, `number ${at} is ${actual[at]}, expected ${expected[at]}`)
}

describe('reading a range of a file into a tensor', () => {
  const inFile = async <A>(bytes: Uint8Array, use: (file: number) => A): Promise<A> => {
    const folder = await mkdtemp(join(tmpdir(), 'range-'))
    const file = join(folder, 'bytes')
    await writeFile(file, bytes)
    const handle = await open(file, 'r')
    try {
      return use(handle.fd)
    } finally {
      await handle.close()
      await rm(folder, { recursive: true })
    }
  }
  const has = (): boolean => tf.getKernel('ReadTensor', tf.getBackend()) !== undefined
  /** The tensor of the range, or `undefined` if the engine has no read kernel. */
  const readBack = (file: number, offset: number, dtype: StoredDtype, shape: readonly number[]): Float32Array | undefined =>
    tf.tidy(() => (uploadRange(file, offset, dtype, shape) as tf.Tensor | undefined)?.dataSync<'float32'>())

  it('every 16-bit number widens as in TypeScript, also NaN, infinities and subnormals', async () => {
    const bytes = new Uint8Array(Uint16Array.from({ length: 2 ** 16 }, (_, i) => i).buffer)
    for (const dtype of ['BF16', 'F16'] as const) {
      const read = await inFile(bytes, (file) => readBack(file, 0, dtype, [256, 256]))
      assert.equal(read !== undefined, has())
      if (read) sameBits(read, toFloat32(bytes, dtype))
    }
  })

  const bytes = Uint8Array.from({ length: 3 * 2 ** 20 + 5 }, (_, i) => Math.imul(i, 2654435761) >>> 24)
  const ranges = fc.record({
    dtype: fc.constantFrom<StoredDtype>('F32', 'BF16', 'F16'),
    offset: fc.nat(9),
    rows: fc.oneof(fc.nat(3), fc.integer({ min: 1, max: 700 })),
    width: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.constant(1024)),
    short: fc.boolean()
  })
  it('any range, at any offset, in one piece or many, equals its bytes; a file that ends before is an error', () =>
    inFile(bytes, (file) =>
      fc.assert(
        fc.property(ranges, ({ dtype, offset, rows, width, short }) => {
          if (!has()) return assert.equal(uploadRange(file, offset, dtype, [rows, width]), undefined)
          const size = rows * width * dtypeBytes[dtype]
          const before = tf.memory().numTensors
          if (short && size > 0) {
            const late = bytes.length - size + 1
            assert.throws(() => readBack(file, late, dtype, [rows, width]), /too short/)
          } else sameBits(readBack(file, offset, dtype, [rows, width])!, toFloat32(bytes.slice(offset, offset + size), dtype))
          assert.equal(tf.memory().numTensors, before)
        }),
        { numRuns: 60 }
      )
    ))

  /** Bytes without an all-ones exponent, in any type and at any offset. */
  const finite = bytes.map((byte) => byte & 0b10111011)
  it('rows quantized while they are read equal rows quantized after reading', () =>
    inFile(finite, (file) =>
      fc.assert(
        fc.property(ranges, fc.constantFrom(...kernelFormats), ({ dtype, offset, rows, width }, format) => {
          if (!has()) return
          tf.tidy(() => {
            const read = uploadRange(file, offset, dtype, [rows, width]) as tf.Tensor2D
            const packed = uploadRange(file, offset, dtype, [rows, width], format) as QuantizedWeight
            assert.deepEqual(formatOf(packed).tensor.dataSync(), formatOf(quantize(format, read)).tensor.dataSync())
          })
        }),
        { numRuns: 60 }
      )
    ))

  /** Whether memory of this process is mapped to the file of a descriptor; `undefined` on systems that do not say. */
  const isMapped = (file: number): boolean | undefined => {
    if (!existsSync('/proc/self/maps')) return undefined
    const path = readlinkSync(`/proc/self/fd/${file}`)
    return readFileSync('/proc/self/maps', 'utf8').includes(path)
  }
  const stored = fc.record({
    offset: fc.constantFrom(0, 8, 64, 100, 4096, 4160),
    rows: fc.integer({ min: 1, max: 90 }),
    columns: fc.integer({ min: 1, max: 1500 }),
    packed: fc.boolean()
  })
  it('rows that are stored as they lie in memory are mapped where their offset is a multiple of 64, else copied; disposal unmaps them', () =>
    inFile(bytes, (file) =>
      fc.assert(
        fc.property(stored, ({ offset, rows, columns, packed }) => {
          if (!has()) return
          const size = rows * columns * (packed ? 4 : 2)
          const weight = packed
            ? uploadPackedRange(file, offset, [rows, columns], 'int8')!
            : (uploadRange(file, offset, 'BF16', [rows, columns], 'bf16') as QuantizedWeight)
          const { tensor } = formatOf(weight)
          const asStored = packed || columns % 2 === 0
          const mapped = isMapped(file)
          if (mapped !== undefined) assert.equal(mapped, asStored && offset % 64 === 0 && size >= 2 ** 16)
          const expected = bytes.slice(offset, offset + size)
          if (asStored) assert.deepEqual(new Uint8Array(tensor.dataSync().slice().buffer), expected)
          tensor.dispose()
          if (mapped !== undefined) assert.equal(isMapped(file), false)
        }),
        { numRuns: 60, examples: [[{ offset: 64, rows: 90, columns: 1500, packed: true }]] }
      )
    ))

  it('a mapped weight stays whole after its file is deleted, and is no larger than the file allows', () =>
    inFile(bytes, (file) => {
      if (!has()) return
      assert.throws(() => uploadPackedRange(file, 64, [2 ** 10, 2 ** 10], 'int8'), /too short/)
      const { tensor } = formatOf(uploadPackedRange(file, 64, [128, 512], 'int8')!)
      if (existsSync('/proc/self/fd')) rmSync(readlinkSync(`/proc/self/fd/${file}`))
      const expected = bytes.slice(64, 64 + 128 * 512 * 4)
      assert.deepEqual(new Uint8Array(tensor.dataSync().slice().buffer), expected)
      tensor.dispose()
    }))

  it('returns undefined for types that the kernel does not read', () =>
    inFile(new Uint8Array(8), (file) => assert.equal(uploadRange(file, 0, 'I8', [8]), undefined)))
})
