import { grownCapacity, layerCache } from '../../../lib/nn/kv-cache.js'
import { tf } from '../../../lib/tf.js'
import { cacheLength, type KVCache } from '../../../models/decoders/decoder.js'
import { positionAt } from '../../../models/internvl/v2pe.js'
import type { Batch } from '../../decoding/batch-cache.js'

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
  /** The rows of one part `[rows, G, capacity, K]`; positions that all of them pad are dropped. */
  const moved = (t: tf.Tensor4D, part: BatchRows): tf.Tensor4D => {
    const length = Math.max(...part.rows.map((row) => rowLength(part.batch, row)))
    const selected = isWhole(part) ? t : t.gather<tf.Tensor4D>(tf.tensor1d([...part.rows], 'int32'))
    const [B, G, , K] = selected.shape
    const used = selected.slice([0, 0, cacheLength(part.batch.kv) - length, 0], [B, G, length, K])
    return tf.pad4d(used, [
      [0, 0],
      [0, 0],
      [longest - length, capacity - longest],
      [0, 0]
    ])
  }
  const joined = (layer: number, of: 'key' | 'value') =>
    tf.tidy(() => {
      const tensors = parts.map((part) => moved(part.batch.kv[layer]![of], part))
      return tensors.length === 1 ? tensors[0]! : tf.concat4d(tensors, 0)
    })
  const kv: KVCache = parts[0]!.batch.kv.map((like, layer) =>
    layerCache(joined(layer, 'key'), joined(layer, 'value'), longest, like)
  )
  const positions = all.map(({ batch, row }) => batch.positions[row]!)
  return {
    kv,
    positions,
    padding: lengths.map((length) => longest - length),
    longestLength: Math.max(...positions.map((row, i) => positionAt(row, lengths[i]!))),
    ropeLength: Math.max(...parts.map(({ batch }) => batch.ropeLength))
  }
}
