import * as E from 'fp-ts/lib/Either.js'
import { dtypeBytes, type StoredDtype } from '../../lib/dtype.js'
import { type Issue, issue } from '../../lib/error.js'
import { sizeOf } from '../../lib/shape.js'
import type { TextConfig } from '../config/config-types.js'
import { fillIn, type KeyRule, sideOf } from './keys.js'

/** A tensor by name, without its data: a `TensorEntry`, or a leaf of a tree. */
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

/** A tensor to be made of parts of others, one after another; `piecesOf` makes it. */
export interface Planned extends Described {
  readonly parts: readonly Part[]
  /** The parts are blocks and scales in MXFP4, for so many experts of `[out, 32 * groups]`; the tensor is their numbers in bf16. */
  readonly mxfp4?: readonly [experts: number, out: number, groups: number]
}

/** What says how a decoder's tensors are fused: its head counts, and which one it is. */
export type Heads = Pick<TextConfig, 'numAttentionHeads' | 'numKeyValueHeads' | 'headDim'> &
  Partial<Pick<TextConfig, 'modelType'>>

type Rows = readonly [from: number, to: number]

/** Rows of a fused tensor that each of its tensors has, in order; undefined when it cannot be so fused. */
type Split = (rows: number, heads: Heads) => ReadonlyArray<readonly Rows[]> | undefined

const thirds: Split = (rows) => (rows % 3 ? undefined : [0, 1, 2].map((i) => [[(i * rows) / 3, ((i + 1) * rows) / 3]]))

/** For each key-value head its query heads, then its key, then its value. Source: InternLM2's `wqkv`. */
const groups: Split = (rows, { numAttentionHeads: H, numKeyValueHeads: G, headDim: K }) => {
  const [queries, size] = [(H / G) * K, (H / G + 2) * K]
  if (rows !== G * size) return undefined
  const all = (from: number, length: number) =>
    Array.from({ length: G }, (_, g): Rows => [g * size + from, g * size + from + length])
  return [all(0, queries), all(queries, K), all(queries + K, K)]
}
const splits = { thirds, groups }

const rowBytes = ({ dtype, shape }: Described): number => dtypeBytes[dtype] * sizeOf(shape.slice(1))
/** A tensor as it is, under another key. */
export const whole = (source: Described, key: string): Planned => ({
  key,
  dtype: source.dtype,
  shape: source.shape,
  parts: [{ source: source.key, begin: 0, end: dtypeBytes[source.dtype] * sizeOf(source.shape) }]
})

/** A fused tensor of a file into those of the tree. */
export const unfuse = (
  source: Described,
  rule: KeyRule,
  found: readonly string[],
  heads: Heads
): E.Either<Issue, readonly Planned[]> => {
  const rows = source.shape[0] ?? 0
  const split = splits[rule.fused!](rows, heads)
  if (!split) {
    const { key, shape } = source
    return E.left(
      issue('FusedShape', `${key}: [${shape.join(', ')}] is no fusion of q, k and v as the configuration has them`, {
        key,
        actual: shape
      })
    )
  }
  const bytes = rowBytes(source)
  return E.right(
    split.map((blocks, i) => ({
      key: fillIn(sideOf(rule, 'tree')[i]!, found),
      dtype: source.dtype,
      shape: [blocks.reduce((n, [from, to]) => n + to - from, 0), ...source.shape.slice(1)],
      parts: blocks.map(([from, to]) => ({ source: source.key, begin: from * bytes, end: to * bytes }))
    }))
  )
}

/** Tensors of the tree into the one that a file fuses them to: the same rows, in the order of the fused tensor. */
export const fuse = (sources: readonly Described[], rule: KeyRule, key: string, heads: Heads): E.Either<Issue, Planned> => {
  const [first] = sources as [Described]
  const rows = sources.reduce((n, { shape }) => n + (shape[0] ?? 0), 0)
  const split = splits[rule.fused!](rows, heads)
  const fits = split?.every((blocks, i) => blocks.reduce((n, [from, to]) => n + to - from, 0) === sources[i]?.shape[0])
  const alike = sources.every((s) => s.dtype === first.dtype && `${s.shape.slice(1)}` === `${first.shape.slice(1)}`)
  if (!split || !fits || !alike) {
    const shapes = sources.map((s) => `${s.key} [${s.shape.join(', ')}] ${s.dtype}`).join(', ')
    return E.left(issue('FusedShape', `${key}: cannot be fused of ${shapes}`, { key }))
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
