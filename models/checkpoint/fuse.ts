import * as E from 'fp-ts/lib/Either.js'
import { dtypeBytes, type StoredDtype } from '../../lib/dtype.js'
import { type Issues, invalid } from '../../lib/error.js'
import { sizeOf } from '../../lib/shape.js'
import type { DecoderConfig } from '../config/config-types.js'
import { fillIn, type KeyRule, keysOf } from './keys.js'

/** Name, type and shape of a tensor without its data: a `TensorEntry`, or a leaf of a parameter tree. */
export interface Described {
  readonly key: string
  readonly dtype: StoredDtype
  readonly shape: readonly number[]
}

/** Bytes `[begin, end)` of a stored tensor. */
export interface Part {
  readonly source: string
  readonly begin: number
  readonly end: number
}

/** A tensor as the concatenation of parts of stored tensors; `pieceReader` reads it. */
export interface Planned extends Described {
  readonly parts: readonly Part[]
  /** Set where the parts are MXFP4 blocks and scales of experts `[out, 32 * groups]`; the tensor is dequantized to bfloat16. */
  readonly mxfp4?: readonly [experts: number, out: number, groups: number]
}

/** The fields of a decoder's configuration that say how its tensors are fused. */
export type Heads = Pick<DecoderConfig, 'numAttentionHeads' | 'numKeyValueHeads' | 'headDim'> &
  Partial<Pick<DecoderConfig, 'modelType'>>

type Rows = readonly [from: number, to: number]

/** The row ranges of each tensor in the fused tensor, in order; undefined where the number of rows does not fit. */
type Split = (rows: number, heads: Heads) => ReadonlyArray<readonly Rows[]> | undefined

const thirds: Split = (rows) => (rows % 3 ? undefined : [0, 1, 2].map((i) => [[(i * rows) / 3, ((i + 1) * rows) / 3]]))

/** Grouped by key-value head: its query heads, then its key, then its value. Source: InternLM2's `wqkv`. */
const groups: Split = (rows, { numAttentionHeads: H, numKeyValueHeads: G, headDim: K }) => {
  const [queries, size] = [(H / G) * K, (H / G + 2) * K]
  if (rows !== G * size) return undefined
  const all = (from: number, length: number) =>
    Array.from({ length: G }, (_, g): Rows => [g * size + from, g * size + from + length])
  return [all(0, queries), all(queries, K), all(queries + K, K)]
}
const splits = { thirds, groups }

const rowBytes = ({ dtype, shape }: Described): number => dtypeBytes[dtype] * sizeOf(shape.slice(1))

/** A stored tensor, unchanged, under another key. */
export const renamed = (source: Described, key: string): Planned => ({
  key,
  dtype: source.dtype,
  shape: source.shape,
  parts: [{ source: source.key, begin: 0, end: dtypeBytes[source.dtype] * sizeOf(source.shape) }]
})

/** Splits a fused tensor of a file into the tensors of the module tree. */
export const unfuse = (
  source: Described,
  rule: KeyRule,
  found: readonly string[],
  heads: Heads
): E.Either<Issues, readonly Planned[]> => {
  const rows = source.shape[0] ?? 0
  const split = splits[rule.fused!](rows, heads)
  if (!split) {
    const { key, shape } = source
    const message = `${key}: [${shape.join(', ')}] does not fit q, k and v with the head counts of the configuration`
    return invalid('FusedShape', message, { key, actual: shape })
  }
  const bytes = rowBytes(source)
  return E.right(
    split.map((blocks, i) => ({
      key: fillIn(keysOf(rule, 'tree')[i]!, found),
      dtype: source.dtype,
      shape: [blocks.reduce((n, [from, to]) => n + to - from, 0), ...source.shape.slice(1)],
      parts: blocks.map(([from, to]) => ({ source: source.key, begin: from * bytes, end: to * bytes }))
    }))
  )
}

/** Fuses tensors of the module tree into the tensor of a file: the same rows, in the order of the fused tensor. */
export const fuse = (sources: readonly Described[], rule: KeyRule, key: string, heads: Heads): E.Either<Issues, Planned> => {
  const [first] = sources as [Described]
  const rows = sources.reduce((n, { shape }) => n + (shape[0] ?? 0), 0)
  const split = splits[rule.fused!](rows, heads)
  const sizesFit = split?.every((blocks, i) => blocks.reduce((n, [from, to]) => n + to - from, 0) === sources[i]?.shape[0])
  const isUniform = sources.every((s) => s.dtype === first.dtype && `${s.shape.slice(1)}` === `${first.shape.slice(1)}`)
  if (!split || !sizesFit || !isUniform) {
    const shapes = sources.map((s) => `${s.key} [${s.shape.join(', ')}] ${s.dtype}`).join(', ')
    return invalid('FusedShape', `${key}: cannot be fused from ${shapes}`, { key })
  }
  const bytes = rowBytes(first)
  const parts = split.flatMap((blocks, i) => {
    let at = 0
    return blocks.map(([from, to]) => {
      const begin = at * bytes
      at += to - from
      return { from, source: sources[i]!.key, begin, end: at * bytes }
    })
  })
  const ordered = parts.sort((a, b) => a.from - b.from).map(({ from: _, ...part }) => part)
  return E.right({ key, dtype: first.dtype, shape: [rows, ...first.shape.slice(1)], parts: ordered })
}
