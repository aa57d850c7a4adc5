import { grownCapacity, type KeyAxis, padPositions, slicePositions } from '../../../lib/nn/attention/kv-cache.js'
import { tf } from '../../../lib/tf.js'
import { cacheLength } from '../../../models/decoders/decoder.js'
import { positionAt } from '../../../models/internvl/v2pe.js'
import { type Batch, combineCaches } from '../../decoding/batch-cache.js'

/** Rows of a batch, by their indices. */
export interface BatchRows {
  readonly batch: Batch
  readonly rows: readonly number[]
}

/** Number of positions of a row, without padding. */
const rowLength = ({ kv, padding }: Batch, row: number): number => cacheLength(kv) - padding[row]!

const isWhole = ({ batch, rows }: BatchRows): boolean => rows.length === batch.padding.length && rows.every((row, i) => row === i)

/**
 * Joins rows of several batches into one batch, padded on the left to the longest row. Keys and values have capacity for the next
 * steps, so that these append in place. All batches have caches of one type. The caller still owns the given batches.
 */
export const joinRows = (parts: readonly BatchRows[]): Batch => {
  const all = parts.flatMap(({ batch, rows }) => rows.map((row) => ({ batch, row })))
  const lengths = all.map(({ batch, row }) => rowLength(batch, row))
  const longest = Math.max(...lengths)
  const capacity = grownCapacity(longest)
  /** The rows of one part with the new capacity; positions that all of them pad are dropped. */
  const moved = (t: tf.Tensor4D, axis: KeyAxis, part: BatchRows): tf.Tensor4D => {
    const length = Math.max(...part.rows.map((row) => rowLength(part.batch, row)))
    const selected = isWhole(part) ? t : t.gather<tf.Tensor4D>(tf.tensor1d([...part.rows], 'int32'))
    const used = slicePositions(selected, axis, cacheLength(part.batch.kv) - length, length)
    return padPositions(used, axis, [longest - length, capacity - longest])
  }
  const joined = (tensors: readonly tf.Tensor4D[], axis: KeyAxis): tf.Tensor4D => {
    const rows = parts.map((part, i) => moved(tensors[i]!, axis, part))
    return rows.length === 1 ? rows[0]! : tf.concat4d(rows, 0)
  }
  const caches = parts.map(({ batch }) => batch.kv)
  const positions = all.map(({ batch, row }) => batch.positions[row]!)
  return {
    kv: combineCaches(caches, joined, longest),
    positions,
    padding: lengths.map((length) => longest - length),
    longestLength: Math.max(...positions.map((row, i) => positionAt(row, lengths[i]!))),
    ropeLength: Math.max(...parts.map(({ batch }) => batch.ropeLength))
  }
}
