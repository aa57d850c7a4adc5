import { fromFloat32, toFloat32 } from '../dtype.js'
import { fused } from '../ops/fused.js'
import { tf } from '../tf.js'

/**
 * Forms in which a weight `[N, K]` lies in memory with fewer bits than float32, named as the key of its words:
 * - `bf16`: bfloat16, two weights a word.
 * - `int8`: 8.5 bits a weight. Records of 64: a word with the scales (bfloat16) of both halves, then a byte a weight.
 * - `int4`: 4.5 bits a weight. Records of 64: a word with the scales, then 32 bytes whose low four bits are the first half and
 *   whose high four bits the second; each is the number of a level of `codebook`, the best ones for Gaussian weights.
 * - `int6`: 6.5 bits a weight. Records of 64: as int4, then 16 bytes, each with the upper two bits of four weights that are 16 apart;
 *   of whole numbers up to 31 in size, 32 is added to each.
 *
 * A row ends with its last record, filled up. `lib/engines/kernels/packed.h` says the same in C++.
 */
export const forms = ['bf16', 'int8', 'int6', 'int4'] as const
export type Form = (typeof forms)[number]

/** A weight `[N, K]` in a packed form: its words, int32 `[N, rowWords(form, K)]`. In a parameter tree it stands where the tensor would. */
export type PackedWeight = { readonly [F in Form]: { readonly [K in F]: tf.Tensor2D } }[Form]

/** A weight `[N, K]` in float32 or in a packed form. */
export type StoredWeight = tf.Tensor2D | PackedWeight

/** Which form a weight has, and the tensor of its numbers or words. */
export const formOf = (weight: StoredWeight): { readonly form: Form | 'float32'; readonly tensor: tf.Tensor2D } => {
  if (weight instanceof tf.Tensor) return { form: 'float32', tensor: weight }
  const [form, tensor] = Object.entries(weight)[0] as [Form, tf.Tensor2D]
  return { form, tensor }
}

/** Weights of a record, and of its half, which has one scale. */
const [record, half] = [64, 32]

const records = (columns: number): number => Math.ceil(columns / record)

/** Forms in records. */
type RecordForm = Exclude<Form, 'bf16'>

/** Bytes of a record: its scales, and its weights. */
const recordBytes: Readonly<Record<RecordForm, number>> = { int8: 4 + record, int6: 4 + (record * 3) / 4, int4: 4 + half }

/** Words (of 32 bits) of a row of `columns` weights. */
export const rowWords = (form: Form, columns: number): number =>
  form === 'bf16' ? Math.ceil(columns / 2) : (records(columns) * recordBytes[form]) / 4

/** Levels of int4: of least squared error for Gaussian weights in groups of 32 with the best scale of each, 7.3 %. Lloyd's algorithm. */
const codebook = [-127, -100, -80, -63, -48, -34, -21, -9, 2, 14, 25, 37, 50, 65, 84, 109] as const

const { fround } = Math
const bfloat16 = (x: number): number => toFloat32(fromFloat32(Float32Array.of(x), 'BF16'), 'BF16')[0]!

/** To the nearest whole number, ties to even. */
const nearestEven = (x: number): number => fround(fround(x + 12582912) - 12582912)

/** Scale and numbers of half a record. */
type PackHalf = (weights: Float32Array) => { readonly scale: number; readonly numbers: Int8Array }

/** Whole numbers up to `most` in size, and what is added to each. */
const packEven =
  (most: number, shift: number): PackHalf =>
  (weights) => {
    const scale = bfloat16(fround(weights.reduce((size, w) => Math.max(size, Math.abs(w)), 0) / most))
    const numbers = Int8Array.from(
      weights,
      (w) => shift + (scale === 0 ? 0 : Math.min(most, Math.max(-most, nearestEven(fround(w / scale)))))
    )
    return { scale, numbers }
  }

/** Twice what is between neighbouring levels: whole numbers. */
const middles = codebook.slice(1).map((level, i) => codebook[i]! + level)

/** For twice a weight in steps of the scale, cut off behind the point, `[i - 255]`: the number of the nearest level. */
const nearestNumbers = Int8Array.from({ length: 511 }, (_, i) => {
  const place = i - 255
  return middles.filter((middle) => (place > 0 ? place >= middle : place > middle)).length
})

/**
 * Scales that are tried for a group put its greatest weight at an end of the codebook, or beside it. Of each, the levels of all
 * weights in 127ths of the greatest, `[w + 127]`.
 */
const trials = [codebook[0], codebook[15]].flatMap((end) =>
  [0.9, 0.98, 1.06, 1.16].map((stretch) =>
    Int32Array.from({ length: 255 }, (_, i) => {
      const x = ((i - 127) * end) / (127 * stretch)
      return codebook[middles.filter((middle) => 2 * x > middle).length]!
    })
  )
)

/** By which 127th of the greatest weight a group is best divided: with the levels of each trial, `product / square` leaves least. */
const bestRatio = (weights: Int8Array): number => {
  let [best, ratio] = [-1, 0]
  for (const levels of trials) {
    let [product, square] = [0, 0]
    for (const w of weights) {
      const level = levels[w + 127]!
      product += w * level
      square += level * level
    }
    const gain = (product * product) / square
    if (gain > best) [best, ratio] = [gain, product / square]
  }
  return ratio
}

/** Between `-most` and `most`; `-most` for what is no number. */
const bounded = (x: number, most: number): number => (x > -most ? Math.min(x, most) : -most)

const smallestNormal = 2 ** -126

/** The scale is the best of a few, with the levels that each would have. */
const packInt4: PackHalf = (weights) => {
  const [high, low] = [weights.reduce((a, b) => (b > a ? b : a)), weights.reduce((a, b) => (b < a ? b : a))]
  const most = high >= -low ? high : low
  const inverse = fround(127 / most)
  const nothing = { scale: 0, numbers: new Int8Array(half) }
  if (!Number.isFinite(inverse)) return nothing
  const rounded = Int8Array.from(weights, (w) => nearestEven(bounded(fround(w * inverse), 127)))
  const scale = bfloat16(fround((bestRatio(rounded) * most) / 127))
  if (!(Math.abs(scale) >= smallestNormal) || !Number.isFinite(scale)) return nothing
  const inHalves = fround(2 / scale)
  const numbers = Int8Array.from(weights, (w) => nearestNumbers[Math.trunc(bounded(fround(w * inHalves), 255)) + 255]!)
  return { scale, numbers }
}

const packHalf: Readonly<Record<RecordForm, PackHalf>> = { int8: packEven(127, 0), int6: packEven(31, 32), int4: packInt4 }

/** Where the upper bits of weight `i` of a record stand in int6: the byte behind the scales, and the first of two bits. */
const upperBits = (i: number) => [half + (i % 16), 2 * Math.floor(i / 16)] as const

const packRecords = (form: RecordForm, row: Float32Array, into: Uint8Array): void => {
  for (let at = 0; at < row.length; at += half) {
    const [start, second] = [Math.floor(at / record) * recordBytes[form], (at / half) % 2]
    const whole = new Float32Array(half)
    whole.set(row.subarray(at, at + half))
    const { scale, numbers } = packHalf[form](whole)
    into.set(fromFloat32(Float32Array.of(scale), 'BF16'), start + 2 * second)
    const weights = into.subarray(start + 4)
    numbers.forEach((number, i) => {
      if (form === 'int8') weights[second * half + i] = number
      else weights[i]! |= (number & 15) << (4 * second)
      const [byte, bit] = upperBits(second * half + i)
      if (form === 'int6') weights[byte]! |= (number >> 4) << bit
    })
  }
}

/** The level of weight `i` of a record, of which it is given what is behind the scales. */
const levelIn = (form: RecordForm, weights: Uint8Array, i: number): number => {
  if (form === 'int8') return (weights[i]! << 24) >> 24
  const low = (weights[i % half]! >> (i < half ? 0 : 4)) & 15
  if (form === 'int4') return codebook[low]!
  const [byte, bit] = upperBits(i)
  return (low | (((weights[byte]! >> bit) & 3) << 4)) - 32
}

/** Rows of `columns` weights to rows of words. */
export const packRows = (form: Form, weights: Float32Array, columns: number): Int32Array => {
  const [rows, words] = [weights.length / columns, rowWords(form, columns)]
  const bytes = new Uint8Array(rows * words * 4)
  for (let n = 0; n < rows; n++) {
    const [row, into] = [weights.subarray(n * columns, (n + 1) * columns), bytes.subarray(n * words * 4, (n + 1) * words * 4)]
    if (form === 'bf16') into.set(fromFloat32(row, 'BF16'))
    else packRecords(form, row, into)
  }
  return new Int32Array(bytes.buffer)
}

/** Rows of words to rows of `columns` weights. */
export const unpackRows = (form: Form, words: Int32Array, columns: number): Float32Array => {
  const width = rowWords(form, columns) * 4
  const bytes = new Uint8Array(words.buffer, words.byteOffset, words.byteLength)
  const rows = bytes.length / width
  const weights = new Float32Array(rows * columns)
  for (let n = 0; n < rows; n++) {
    const row = bytes.subarray(n * width, (n + 1) * width)
    if (form === 'bf16') {
      weights.set(toFloat32(row.subarray(0, columns * 2), 'BF16'), n * columns)
      continue
    }
    for (let k = 0; k < columns; k += half) {
      const [start, second] = [Math.floor(k / record) * recordBytes[form], (k / half) % 2]
      const scale = toFloat32(row.slice(start + 2 * second, start + 2 * second + 2), 'BF16')[0]!
      const packed = row.subarray(start + 4)
      for (let i = 0; i < Math.min(half, columns - k); i++)
        weights[n * columns + k + i] = scale * levelIn(form, packed, second * half + i)
    }
  }
  return weights
}

/** A weight `[N, K]` in a packed form. */
export const pack = (form: Form, weight: tf.Tensor2D): PackedWeight => {
  const [N, K] = weight.shape
  const words = fused('PackWeight', { x: weight }, { form }, ({ x }) =>
    tf.tensor2d(packRows(form, x.dataSync() as Float32Array, K), [N, rowWords(form, K)], 'int32')
  )
  return { [form]: words } as unknown as PackedWeight
}

/**
 * Whether the present engine multiplies with packed weights as they lie. Elsewhere each product would unpack them anew, so they are
 * unpacked once, when they are loaded: the results are the same, the memory is that of float32.
 */
export const keepsPacked = (): boolean => tf.getKernel('PackedAffine', tf.getBackend()) !== undefined

/** Rows of a weight `[N, columns]` in float32, whatever form they have. No gradient goes through a packed form. */
export const unpack = (weight: StoredWeight, columns: number): tf.Tensor2D => {
  const { form, tensor } = formOf(weight)
  return form === 'float32' ? tensor : unpackWords(form, tensor, columns)
}

/** Rows of words in a form, `[…, words]`, to rows of `columns` weights, `[…, columns]`. */
export const unpackWords = <R extends tf.Rank>(form: Form, words: tf.Tensor<R>, columns: number): tf.Tensor<R> =>
  fused('UnpackWeight', { x: words }, { form, columns }, ({ x }) =>
    tf.tensor(unpackRows(form, x.dataSync() as Int32Array, columns), [...x.shape.slice(0, -1), columns] as tf.ShapeMap[R])
  )
