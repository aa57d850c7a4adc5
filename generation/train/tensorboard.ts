import { appendFileSync, mkdirSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import type { Listener } from './trainer.js'

// Event files as TensorBoard reads them: records of a length, its checksum, a protocol buffer and its checksum.
// Source: tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto, tensorflow/core/framework/summary.proto.

const polynomial = 0x82f63b78
const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ polynomial : crc >>> 1
  return crc
})

/** CRC-32C, Castagnoli's. */
export const crc32c = (bytes: Uint8Array): number => {
  let crc = 0xffffffff
  for (const byte of bytes) crc = table[(crc ^ byte) & 255]! ^ (crc >>> 8)
  return (crc ^ 0xffffffff) >>> 0
}

/** A checksum that is safe to keep beside what it sums. */
const masked = (bytes: Uint8Array): number => {
  const crc = crc32c(bytes)
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0
}

/** One record. */
export const tfRecord = (data: Uint8Array): Uint8Array => {
  const record = new Uint8Array(16 + data.length)
  const view = new DataView(record.buffer)
  view.setBigUint64(0, BigInt(data.length), true)
  view.setUint32(8, masked(record.subarray(0, 8)), true)
  record.set(data, 12)
  view.setUint32(12 + data.length, masked(data), true)
  return record
}

const varint = (value: number): readonly number[] => {
  const bytes: number[] = []
  let left = value
  for (; left >= 128; left = Math.floor(left / 128)) bytes.push((left % 128) | 128)
  return [...bytes, left]
}
const fixed = (bytes: 4 | 8, value: number): readonly number[] => {
  const view = new DataView(new ArrayBuffer(bytes))
  if (bytes === 4) view.setFloat32(0, value, true)
  else view.setFloat64(0, value, true)
  return [...new Uint8Array(view.buffer)]
}
const [VARINT, DOUBLE, BYTES, FLOAT] = [0, 1, 2, 5]
const tag = (number: number, wire: number): readonly number[] => varint((number << 3) | wire)
const embedded = (number: number, bytes: readonly number[]) => [...tag(number, BYTES!), ...varint(bytes.length), ...bytes]
const text = (number: number, value: string) => embedded(number, [...new TextEncoder().encode(value)])

/** `Event { wall_time, step, summary { value { tag, simple_value } } }` of numbers by name. */
export const scalarEvent = (seconds: number, step: number, scalars: Readonly<Record<string, number>>): Uint8Array =>
  Uint8Array.from([
    ...tag(1, DOUBLE!),
    ...fixed(8, seconds),
    ...tag(2, VARINT!),
    ...varint(step),
    ...embedded(
      5,
      Object.entries(scalars).flatMap(([name, x]) => embedded(1, [...text(1, name), ...tag(2, FLOAT!), ...fixed(4, x)]))
    )
  ])

/** `Event { wall_time, file_version }`, the first of a file. */
const versionEvent = (seconds: number): Uint8Array =>
  Uint8Array.from([...tag(1, DOUBLE!), ...fixed(8, seconds), ...text(3, 'brain.Event:2')])

/** Writes the numbers of a run into an event file of the folder, a new one each time it begins or goes on. */
export const tensorBoard = (folder: string): Listener => {
  let file = ''
  const now = () => Date.now() / 1000
  const append = (event: Uint8Array) => appendFileSync(file, tfRecord(event))
  return {
    begin: () => {
      mkdirSync(folder, { recursive: true })
      file = join(folder, `events.out.tfevents.${Math.floor(now())}.${hostname()}.${process.pid}`)
      append(versionEvent(now()))
    },
    step: ({ step, loss, norm, rate, tokens, seconds }) =>
      append(scalarEvent(now(), step, { 'train/loss': loss, 'train/norm': norm, 'train/rate': rate, 'train/tokens_per_second': tokens / seconds })), // biome-ignore format: one line
    evaluated: (step, scores) =>
      append(scalarEvent(now(), step, Object.fromEntries(Object.entries(scores).map(([name, x]) => [`held_out/${name}`, x]))))
  }
}
