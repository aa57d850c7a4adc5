import { isRecord } from '../../../lib/plain-object.js'

/** Names of columns; each has the defaults of `defaultColumns`. */
export interface ColumnNames {
  readonly prompt?: string | undefined
  readonly image?: string | undefined
  readonly video?: string | undefined
  readonly id?: string | undefined
}

/** Columns that are read where the options name none; the first that a row has. */
export const defaultColumns = {
  prompt: ['question', 'prompt', 'text'],
  image: ['image', 'images'],
  video: ['video', 'videos'],
  id: ['id', 'question_id', 'custom_id']
} as const satisfies Readonly<Record<keyof ColumnNames, readonly string[]>>

type Json = Readonly<Record<string, unknown>>

/** The value of a column; undefined where the row has none. */
export const columnValue = (record: Json, kind: keyof ColumnNames, columns: ColumnNames): unknown => {
  const names: readonly string[] = columns[kind] === undefined ? defaultColumns[kind] : [columns[kind]]
  return names.map((name) => record[name]).find((value) => value !== undefined && value !== null)
}

const dataUrl = (bytes: Uint8Array): string => `data:application/octet-stream;base64,${Buffer.from(bytes).toString('base64')}`

/** Bytes as a data URL; undefined for other values. `Buffer`s in JSON and lists of bytes count. */
const bytesText = (value: unknown): string | undefined => {
  if (value instanceof Uint8Array) return dataUrl(value)
  if (isRecord(value) && value.type === 'Buffer') return bytesText(value.data)
  const isBytes = Array.isArray(value) && value.length > 0 && value.every((x) => Number.isInteger(x) && x >= 0 && x < 256)
  return isBytes ? dataUrl(Uint8Array.from(value)) : undefined
}

/** One image or video as text: a path, a URL, or a data URL of bytes. Source: `Image` of Hugging Face's datasets (`bytes`, `path`). */
const sourceText = (value: unknown): unknown => {
  const bytes = bytesText(value)
  if (bytes !== undefined || !isRecord(value)) return bytes ?? value
  const { bytes: inner, path, url, base64 } = value
  if (typeof inner === 'string') return inner.startsWith('data:') ? inner : `data:application/octet-stream;base64,${inner}`
  return bytesText(inner) ?? path ?? url ?? base64 ?? value
}

/** A cell of a table may have a JSON list of sources. */
const parsedList = (value: unknown): unknown => {
  if (typeof value !== 'string' || !value.startsWith('[')) return value
  try {
    const list: unknown = JSON.parse(value)
    return Array.isArray(list) ? list : value
  } catch {
    return value
  }
}

const isBytes = (value: unknown): boolean => bytesText(value) !== undefined

/** All images or videos of a column as texts; a list of frames stays a list. Values that are no source stay as they are. */
export const mediaSources = (column: unknown): readonly unknown[] => {
  const value = parsedList(column)
  if (value === undefined || value === null || value === '') return []
  const list = Array.isArray(value) && !isBytes(value) ? value : [value]
  return list.map((item) => (Array.isArray(item) && !isBytes(item) ? item.map(sourceText) : sourceText(item)))
}
