import type { LogitsProcessor } from '../generation-options.js'
import { topIndices } from '../logits-warpers.js'
import { randomPermutation } from './torch-random.js'
import type { GreenListWatermark } from './watermarking-config.js'

const tableSize = 1_000_003
const tables = new Map<number, Int32Array>() // a cache: a permutation of a million numbers for each hashing key

const tableOf = (hashingKey: number): Int32Array => {
  const table = tables.get(hashingKey) ?? randomPermutation(tableSize, BigInt(hashingKey))
  tables.set(hashingKey, table)
  return table
}

/** Candidates of a self-hash step. Source: `WatermarkLogitsProcessor._score_rejection_sampling`. */
const selfHashCandidates = 40

/** The seed of a green list after `ids`, in 64 bits. Source: `WatermarkLogitsProcessor.set_seed` (transformers 5.24). */
const seedAfter = (
  ids: readonly number[],
  { seedingScheme = 'lefthash', hashingKey = 15485863, contextWidth = 1 }: GreenListWatermark
): bigint => {
  const key = BigInt(hashingKey)
  if (seedingScheme === 'lefthash') return BigInt.asUintN(64, (key * BigInt(ids.at(-1)!)) % (2n ** 64n - 1n))
  const table = tableOf(hashingKey)
  const entry = (id: number) => BigInt(table[id % tableSize]! + 1)
  const products = ids.slice(-contextWidth).map((id) => BigInt.asIntN(64, key * entry(id) * entry(ids.at(-1)!)))
  const least = products.reduce((a, b) => (b < a ? b : a))
  const modulus = 2n ** 64n - 1n
  return ((least % modulus) + modulus) % modulus // Python's remainder is never negative
}

/** Ids of the green tokens after `ids`; with `selfhash` the last of `ids` is the new token. */
export const greenList = (ids: readonly number[], vocabSize: number, c: GreenListWatermark): Int32Array =>
  randomPermutation(vocabSize, seedAfter(ids, c), Math.trunc(vocabSize * (c.greenlistRatio ?? 0.25)))

/**
 * Adds the bias to the logits of green tokens: those of a list that the last token seeds, or with `selfhash` those of the 40 most probable
 * tokens that are in the list which they seed themselves. Source: `WatermarkLogitsProcessor` (transformers 5.24).
 */
export const greenListWatermark =
  (c: GreenListWatermark): LogitsProcessor =>
  (ids, logits) => {
    const { seedingScheme = 'lefthash', contextWidth = 1, bias = 2 } = c
    if (ids.length < contextWidth) return logits
    const V = logits.length
    const green =
      seedingScheme === 'lefthash'
        ? greenList(ids, V, c)
        : topIndices(logits, Math.min(selfHashCandidates, V)).filter((id) => greenList([...ids, id], V, c).includes(id))
    const out = logits.slice()
    for (const id of green) out[id]! += bias
    return out
  }
