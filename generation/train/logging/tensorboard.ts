import { appendFileSync, mkdirSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import type { TrainerCallback } from '../trainer.js'

// Event files of TensorBoard: each record is a length, its checksum, a protocol buffer and its checksum.
// Source: tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto, tensorflow/core/framework/summary.proto.

const polynomial = 0x82f63b78
const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ polynomial : crc >>> 1
  return crc
})

/** CRC-32C (Castagnoli). */
export const crc32c = (bytes: Uint8Array): number => {
  let crc = 0xffffffff
  for (const byte of bytes) crc = table[(crc ^ byte) & 255]! ^ (crc >>> 8)
  return (crc ^ 0xffffffff) >>> 0
}

/** Masked checksum of the record format: safe to store beside the data of the checksum. */
const maskedCrc32c = (bytes: Uint8Array): number => {
  const crc = crc32c(bytes)
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0
}

/** Encodes one record. */
export const tfRecord = (data: Uint8Array): Uint8Array => {
  const record = new Uint8Array(16 + data.length)
  const view = new DataView(record.buffer)
  view.setBigUint64(0, BigInt(data.length), true)
  view.setUint32(8, maskedCrc32c(record.subarray(0, 8)), true)
  record.set(data, 12)
  view.setUint32(12 + data.length, maskedCrc32c(data), true)
  return record
}

const varint = (value: number): readonly number[] => {
  const bytes: number[] = []
  let rest = value
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128)
  return [...bytes, rest]
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

/** Encodes `Event { wall_time, step, summary { value { tag, simple_value } } }` of scalars by name. */
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

/** Encodes `Event { wall_time, file_version }`, the first event of a file. */
const versionEvent = (seconds: number): Uint8Array =>
  Uint8Array.from([...tag(1, DOUBLE!), ...fixed(8, seconds), ...text(3, 'brain.Event:2')])

const prefixed = (prefix: string, scalars: Readonly<Record<string, number>>) =>
  Object.fromEntries(Object.entries(scalars).map(([name, x]) => [`${prefix}/${name}`, x]))

/** Logs scalars to an event file in the folder; each start of training opens a new file. */
export const tensorBoardLogger = (folder: string): TrainerCallback => {
  let file = ''
  const now = () => Date.now() / 1000
  const append = (event: Uint8Array) => appendFileSync(file, tfRecord(event))
  return {
    onTrainBegin: () => {
      mkdirSync(folder, { recursive: true })
      file = join(folder, `events.out.tfevents.${Math.floor(now())}.${hostname()}.${process.pid}`)
      append(versionEvent(now()))
    },
    onStepEnd: ({ step, loss, gradNorm, learningRate, metrics, tokens, seconds }) => {
      const scalars = { loss, grad_norm: gradNorm, learning_rate: learningRate, tokens_per_second: tokens / seconds, ...metrics }
      append(scalarEvent(now(), step, prefixed('train', scalars)))
    },
    onEvaluate: (step, metrics) => append(scalarEvent(now(), step, prefixed('validation', metrics)))
  }
}
