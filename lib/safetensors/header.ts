import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as RA from 'fp-ts/lib/ReadonlyArray.js'
import { dtypeBytes, isStoredDtype, type StoredDtype } from '../dtype.js'
import { errorText, type Issue, type Issues, issue, valueText, whenValid } from '../error.js'
import { isRecord } from '../plain-object.js'
import { sizeOf } from '../shape.js'

/** Location of a tensor: `bytes` bytes of `file` from `offset`, counted from the start of the file. */
export interface TensorEntry {
  readonly key: string
  readonly dtype: StoredDtype
  readonly shape: readonly number[]
  readonly file: string
  readonly offset: number
  readonly bytes: number
}

/** Contents of a safetensors header. */
export interface Header {
  readonly entries: ReadonlyMap<string, TensorEntry>
  readonly metadata: Readonly<Record<string, string>>
}

/** Source: the format's reference implementation refuses longer headers. */
const maxHeaderBytes = 100_000_000

/**
 * Length of the header, from the first 8 bytes of a file (little-endian). The header must end within the file.
 * Errors: `FileCutShort`, `HeaderLength`.
 */
export const headerLength = (file: string, prefix: Uint8Array, fileBytes: number): E.Either<Issues, number> => {
  if (prefix.byteLength < 8) {
    const message = `${file}: ${fileBytes} bytes cannot hold a header; the file is cut short, or no safetensors file`
    return E.left([issue('FileCutShort', message, { file, actual: fileBytes })])
  }
  const length = Number(new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true))
  const most = Math.min(maxHeaderBytes, fileBytes - 8)
  if (length >= 2 && length <= most) return E.right(length)
  const message = `${file}: it claims a header of ${length} bytes, where at least 2 and at most ${most} are possible; the file is cut short, or no safetensors file`
  return E.left([issue('HeaderLength', message, { file, expected: most, actual: length })])
}

type Json = Readonly<Record<string, unknown>>
const isNatural = (x: unknown): x is number => Number.isSafeInteger(x) && (x as number) >= 0
const isNaturals = (x: unknown): x is readonly number[] => Array.isArray(x) && x.every(isNatural)

/** Keys of the outermost object of valid JSON text, with repetitions: `JSON.parse` keeps the last of repeated keys only. */
const outermostKeys = (json: string): readonly string[] => {
  const keys: string[] = []
  let depth = 0
  for (const [token] of json.matchAll(/"[^"\\]*(?:\\.[^"\\]*)*"(?:\s*:)?|[{}[\]]/g)) {
    if (token === '{' || token === '[') depth++
    else if (token === '}' || token === ']') depth--
    else if (depth === 1 && token.endsWith(':')) keys.push(JSON.parse(token.slice(0, token.lastIndexOf('"') + 1)))
  }
  return keys
}

const repeated = (keys: readonly string[]): readonly string[] => {
  const distinctKeys = new Set<string>()
  return [...new Set(keys.filter((key) => distinctKeys.size === distinctKeys.add(key).size))]
}

/** The entry of one tensor, or its error. `dataStart` is the offset of the end of the header. */
const tensorEntry = (file: string, key: string, value: unknown, dataStart: number): E.Either<Issue, TensorEntry> => {
  const wrong = (tag: string, what: string, fields: Json = {}) =>
    E.left(issue(tag, `${file}: tensor ${key}: ${what}`, { file, key, ...fields }))
  if (!isRecord(value)) return wrong('TensorMalformed', 'its description is not an object')
  const { dtype, shape, data_offsets: offsets } = value
  if (!isStoredDtype(dtype))
    return wrong('UnknownDtype', `unknown dtype ${valueText(dtype)}; known are ${Object.keys(dtypeBytes).join(', ')}`, {
      dtype
    })
  if (!isNaturals(shape)) return wrong('TensorMalformed', 'its shape is not a list of whole numbers', { shape })
  if (!isNaturals(offsets) || offsets.length !== 2)
    return wrong('TensorOffsets', 'its data_offsets are not two whole numbers', { offsets })
  const [begin, end] = offsets as readonly [number, number]
  if (begin > end) return wrong('TensorOffsets', `it begins at byte ${begin}, after its end at ${end}`, { offsets })
  const [expected, actual] = [sizeOf(shape) * dtypeBytes[dtype], end - begin]
  if (expected !== actual)
    return wrong('TensorSize', `[${shape.join(', ')}] of ${dtype} takes ${expected} bytes; the header gives it ${actual}`, {
      expected,
      actual
    })
  return E.right({ key, dtype, shape, file, offset: dataStart + begin, bytes: actual })
}

/** Errors of the layout: the tensors must fill the file from the header to the end, without overlaps or gaps. */
const layoutIssues = (file: string, entries: readonly TensorEntry[], dataStart: number, fileBytes: number): readonly Issue[] => {
  const issues: Issue[] = []
  let [end, last] = [dataStart, 'the header']
  for (const { key, offset, bytes } of [...entries].sort((a, b) => a.offset - b.offset || a.bytes - b.bytes)) {
    const fields = { file, key, after: last }
    if (offset < end)
      issues.push(issue('TensorsOverlap', `${file}: tensor ${key} overlaps ${last} by ${end - offset} bytes`, fields))
    if (offset > end)
      issues.push(
        issue('TensorsApart', `${file}: ${offset - end} bytes between ${last} and tensor ${key} belong to no tensor`, fields)
      )
    if (offset + bytes >= end) [end, last] = [offset + bytes, `tensor ${key}`]
  }
  if (end > fileBytes) {
    const lost = entries.filter((entry) => entry.offset + entry.bytes > fileBytes).map(({ key }) => key)
    const message = `${file}: the file is cut short: ${fileBytes} bytes of ${end}, without all of ${lost.length} tensors (${lost[0]} first); download or copy it again`
    issues.push(issue('FileCutShort', message, { file, key: lost[0], expected: end, actual: fileBytes }))
  }
  if (end < fileBytes)
    issues.push(
      issue('FileTooLong', `${file}: ${fileBytes - end} bytes after ${last} belong to no tensor`, {
        file,
        expected: end,
        actual: fileBytes
      })
    )
  return issues
}

const isTexts = (x: unknown): x is Readonly<Record<string, string>> =>
  isRecord(x) && Object.values(x).every((value) => typeof value === 'string')

/** The entries of a parsed header, with all errors of keys, tensors and their layout. */
const headerOf = (
  file: string,
  { __metadata__: metadata = {}, ...tensors }: Json,
  duplicates: readonly string[],
  dataStart: number,
  fileBytes: number
): E.Either<Issues, Header> => {
  const { left: invalidTensors, right: entries } = RA.separate(
    Object.entries(tensors).map(([key, value]) => tensorEntry(file, key, value, dataStart))
  )
  const issues = [
    ...duplicates.map((key) => issue('DuplicateKey', `${file}: the header lists ${key} more than once`, { file, key })),
    ...(isTexts(metadata)
      ? []
      : [issue('MetadataMalformed', `${file}: __metadata__ is not an object of texts`, { file, key: '__metadata__' })]),
    ...invalidTensors,
    // the bytes of an invalid entry would be reported as a gap
    ...(invalidTensors.length > 0 ? [] : layoutIssues(file, entries, dataStart, fileBytes))
  ]
  return whenValid(issues, () => ({
    entries: new Map(entries.map((entry) => [entry.key, entry])),
    metadata: metadata as Header['metadata']
  }))
}

/**
 * Parses the bytes of a header (after its length); `fileBytes` is the size of the whole file. All errors are collected:
 * `HeaderNotJson`, `DuplicateKey`, `TensorMalformed`, `UnknownDtype`, `TensorOffsets`, `TensorSize`, `TensorsOverlap`,
 * `TensorsApart`, `FileCutShort`, `FileTooLong`. Source: the format's specification, huggingface/safetensors.
 */
export const parseHeader = (file: string, header: Uint8Array, fileBytes: number): E.Either<Issues, Header> =>
  pipe(
    E.tryCatch(
      () => {
        const text = new TextDecoder('utf-8', { fatal: true }).decode(header)
        const json: unknown = JSON.parse(text)
        return { json, duplicates: repeated(outermostKeys(text)) }
      },
      (error) => errorText(error)
    ),
    E.flatMap(({ json, duplicates }) => (isRecord(json) ? E.right({ json, duplicates }) : E.left(`it is ${valueText(json)}`))),
    E.mapLeft((reason): Issues => {
      const message = `${file}: its header is not a JSON object (${reason}); it is no safetensors file, or damaged`
      return [issue('HeaderNotJson', message, { file })]
    }),
    E.flatMap(({ json, duplicates }) => headerOf(file, json, duplicates, 8 + header.byteLength, fileBytes))
  )
