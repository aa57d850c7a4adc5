import fc from 'fast-check'
import { dtypeBytes, type StoredDtype } from '../../lib/dtype.js'
import type { TensorSource } from '../../lib/safetensors/write.js'
import { sizeOf } from '../../lib/shape.js'

/** Shapes of rank 0 to 3, empty ones among them. */
export const shape: fc.Arbitrary<readonly number[]> = fc.array(fc.nat(4), { maxLength: 3 })

const dtypes = Object.keys(dtypeBytes) as StoredDtype[]

/** A tensor source with its data. */
export type Sample = TensorSource & { readonly data: Uint8Array }

/** A tensor of any type, its data random bits. */
export const tensor: fc.Arbitrary<Sample> = fc
  .record({
    key: fc.string({ unit: 'binary' }).filter((key) => key !== '__metadata__'),
    dtype: fc.constantFrom(...dtypes),
    shape
  })
  .chain(({ key, dtype, shape }) => {
    const length = sizeOf(shape) * dtypeBytes[dtype]
    return fc.uint8Array({ minLength: length, maxLength: length }).map((data) => ({ key, dtype, shape, data, bytes: () => data }))
  })

/** Tensors with distinct keys. */
export const tensors = fc.uniqueArray(tensor, { selector: ({ key }) => key, maxLength: 6 })

/** A file of `length + json + data`; `claimed` is the header length stored in the file. */
export const fileOf = (json: string, data: Uint8Array = new Uint8Array(0), claimed?: number | bigint): Uint8Array => {
  const header = new TextEncoder().encode(json)
  const file = new Uint8Array(8 + header.length + data.length)
  new DataView(file.buffer).setBigUint64(0, BigInt(claimed ?? header.length), true)
  file.set(header, 8)
  file.set(data, 8 + header.length)
  return file
}

type Mutation = (file: Uint8Array) => Uint8Array

const replaced = (file: Uint8Array, from: number, to: number, by: Uint8Array): Uint8Array =>
  Uint8Array.from([...file.subarray(0, from), ...by, ...file.subarray(to)])

/** Numbers that tend to break readers of offsets. */
const number = fc.constantFrom(
  '0',
  '-1',
  '1',
  '7',
  '1.5',
  '1e3',
  '4294967296',
  '9007199254740993',
  '1e400',
  '18446744073709551615'
)
const words = fc.constantFrom(
  'null',
  '{}',
  '[]',
  '""',
  '"F32"',
  '"Q4"',
  '[0,0]',
  '[8,0]',
  ',',
  ':',
  '}',
  '{',
  '"',
  '\\',
  '"__proto__":',
  '\u0000'
)

const bytes: fc.Arbitrary<Mutation> = fc.tuple(fc.nat(), fc.nat(3), fc.uint8Array({ maxLength: 4 })).map(
  ([at, length, by]) =>
    (file) =>
      replaced(file, at % (file.length + 1), Math.min(file.length, (at % (file.length + 1)) + length), by)
)

/** Replaces a number or a token of the header by another. */
const value: fc.Arbitrary<Mutation> = fc.tuple(fc.nat(), fc.oneof(number, words)).map(([nth, by]) => (file) => {
  const text = Buffer.from(file).toString('latin1')
  const found = [...text.matchAll(/\d+|"[^"]*"|[[\]{},:]/g)].filter(({ index }) => index >= 8)
  const hit = found[nth % Math.max(1, found.length)]
  return hit ? replaced(file, hit.index, hit.index + hit[0].length, new TextEncoder().encode(by)) : file
})
const cut: fc.Arbitrary<Mutation> = fc.nat().map((at) => (file) => file.slice(0, at % (file.length + 1)))
const claim: fc.Arbitrary<Mutation> = fc
  .oneof(fc.nat(300).map(BigInt), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }))
  .map((length) => (file) => {
    if (file.length < 8) return file
    const copy = file.slice()
    new DataView(copy.buffer).setBigUint64(0, length, true)
    return copy
  })

/** Sets the claimed length to what the header's braces now take, so that mutated headers are parsed. */
const fixLength: Mutation = (file) => {
  const end = Buffer.from(file).lastIndexOf(0x7d)
  if (end < 8) return file
  const copy = file.slice()
  new DataView(copy.buffer).setBigUint64(0, BigInt(end + 1 - 8), true)
  return copy
}

/** One to three mutations of a file; most keep the claimed length of the header right. */
export const mutation: fc.Arbitrary<Mutation> = fc
  .tuple(fc.array(fc.oneof({ weight: 4, arbitrary: value }, bytes, cut, claim), { minLength: 1, maxLength: 3 }), fc.nat(3))
  .map(([steps, random]) => (file) => {
    const mutated = steps.reduce((bytes, step) => step(bytes), file)
    return random ? fixLength(mutated) : mutated
  })
