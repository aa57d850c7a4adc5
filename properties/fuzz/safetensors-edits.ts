import fc from 'fast-check'
import { fileOf } from '../arbitraries/safetensors.js'
import { numbers, shortTexts, values } from './awkward.js'

/** Changes of one entry of a safetensors header, or of the numbers of its tensor; `tensor` is taken modulo the number of tensors. */
export type TensorEdit = { readonly tensor: number } & (
  | { readonly op: 'set'; readonly field: string; readonly value: unknown }
  | { readonly op: 'rename' | 'copy'; readonly key: string }
  | { readonly op: 'delete' }
  | { readonly op: 'fill'; readonly number: number; readonly all: boolean }
)

const tensor = fc.nat(200)
const dtypes = ['F32', 'F16', 'BF16', 'F64', 'I64', 'I32', 'U8', 'BOOL', 'F8_E4M3', 'f32', '']
const offsets = fc.oneof(fc.array(numbers, { maxLength: 3 }), values)

export const tensorEdits: fc.Arbitrary<readonly TensorEdit[]> = fc.array(
  fc.oneof(
    fc.record({ tensor, op: fc.constant('set' as const), field: fc.constant('dtype'), value: fc.oneof(fc.constantFrom<unknown>(...dtypes), values) }),
    fc.record({ tensor, op: fc.constant('set' as const), field: fc.constantFrom('shape', 'data_offsets', 'odd'), value: offsets }),
    fc.record({ tensor, op: fc.constantFrom('rename' as const, 'copy' as const), key: fc.oneof(shortTexts, fc.constantFrom('__metadata__', '__proto__', 'lm_head.weight')) }),
    fc.record({ tensor, op: fc.constant('delete' as const) }),
    fc.record({ tensor, op: fc.constant('fill' as const), number: numbers, all: fc.boolean() })
  ),
  { maxLength: 3 }
) // biome-ignore format: one line an edit

interface Entry {
  readonly dtype: unknown
  readonly shape: unknown
  readonly data_offsets: readonly [number, number]
}

/** Bits of a number as a stored element of two or four bytes. */
const elementOf = (number: number, dtype: unknown): Uint8Array => {
  const float = new Uint8Array(Float32Array.of(number).buffer)
  return dtype === 'F32' ? float : float.subarray(2)
}

/** Writes a number into the first element of a tensor, or into all elements. */
const fill = (data: Uint8Array, { dtype, data_offsets: [begin, end] }: Entry, number: number, all: boolean): void => {
  const element = elementOf(number, dtype)
  const last = all ? end : Math.min(end, begin + element.length)
  for (let at = begin; at + element.length <= last; at += element.length) data.set(element, at)
}

/** A safetensors file after edits of its tensors. */
export const editTensors = (file: Uint8Array, edits: readonly TensorEdit[]): Uint8Array => {
  const length = Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true))
  const header = new Map<string, object>(Object.entries(JSON.parse(Buffer.from(file.subarray(8, 8 + length)).toString())))
  const data = file.slice(8 + length)
  const keys = [...header.keys()].filter((key) => key !== '__metadata__')
  const stored = new Map(header) // offsets are those of the data, unaffected by other edits
  for (const edit of edits) {
    const key = keys[edit.tensor % keys.length]!
    const entry = header.get(key)
    if (!entry) continue
    if (edit.op === 'fill') fill(data, stored.get(key) as Entry, edit.number, edit.all)
    else if (edit.op === 'rename' || edit.op === 'copy') header.set(edit.key, entry)
    else if (edit.op === 'set') header.set(key, { ...entry, [edit.field]: edit.value })
    if (edit.op === 'delete' || edit.op === 'rename') header.delete(key)
  }
  return fileOf(JSON.stringify(Object.fromEntries(header)), data)
}
