import type { LogitsProcessor } from '../generation-options.js'
import { softmax } from '../logits-warpers.js'
import { randomBits } from './torch-random.js'
import type { SynthIdWatermark } from './watermarking-config.js'

/** A step of a linear congruential generator in 64 bits. Source: `accumulate_hash`. */
const hashStep = (hash: bigint, value: bigint): bigint => BigInt.asIntN(64, (hash + value) * 6364136223846793005n + 1n)
const hashOf = (values: readonly number[], start = 1n): bigint =>
  values.reduce((hash, value) => hashStep(hash, BigInt(value)), start)

/** Bits for hashes, by a table that the seed determines. */
const bitsOf = ({ samplingTableSize: size = 2 ** 16, samplingTableSeed: seed = 0 }: SynthIdWatermark) => {
  const [table, modulus] = [randomBits(size, BigInt(seed)), BigInt(size)]
  return (hash: bigint): number => table[Number(((hash % modulus) + modulus) % modulus)]!
}

/** The last `ngramLen - 1` of the first `count` new tokens, after zeros. */
const contextAt = (answer: readonly number[], count: number, { ngramLen }: SynthIdWatermark): readonly number[] =>
  [...Array<number>(ngramLen - 1).fill(0), ...answer.slice(0, count)].slice(-(ngramLen - 1))

const lowest = -(2 - 2 ** -23) * 2 ** 127

/**
 * SynthID text watermark: in a tournament of one layer for each key, tokens whose bit of context, token and key is 1 gain probability. A
 * context that occurred before is not watermarked. The result is log-probabilities.
 * Source: Dathathri et al. 2024; `SynthIDTextWatermarkLogitsProcessor` (transformers 5.24).
 */
export const synthIdWatermark = (c: SynthIdWatermark): LogitsProcessor => {
  const [bit, keys] = [bitsOf(c), c.keys.map(BigInt)]
  return (ids, logits, promptLength) => {
    const answer = ids.slice(promptLength)
    const firstCall = c.skipFirstNgramCalls ? c.ngramLen - 1 : 0
    if (answer.length < firstCall) return logits
    const hashAt = (count: number) => hashOf(contextAt(answer, count, c))
    const context = hashAt(answer.length)
    const earliest = Math.max(firstCall, answer.length - (c.contextHistorySize ?? 1024))
    for (let count = earliest; count < answer.length; count++) if (hashAt(count) === context) return logits
    const probabilities = softmax(logits)
    const possible = [...probabilities.keys()].filter((id) => probabilities[id]! > 0)
    const hashes = possible.map((id) => hashStep(context, BigInt(id)))
    for (const key of keys) {
      const bits = hashes.map((hash) => bit(hashStep(hash, key)))
      const mass = possible.reduce((sum, id, i) => sum + bits[i]! * probabilities[id]!, 0)
      for (const [i, id] of possible.entries()) probabilities[id]! *= 1 + bits[i]! - mass
    }
    return Float32Array.from(probabilities, (p) => (p > 0 ? Math.log(p) : lowest))
  }
}

/**
 * The bits of every n-gram of a text, `[length - ngramLen + 1][keys]`: of a watermarked text more than half are 1. Throws a `RangeError` for
 * a text shorter than an n-gram. Source: `compute_g_values` (transformers 5.24).
 */
export const synthIdBits = (ids: readonly number[], c: SynthIdWatermark): readonly (readonly number[])[] => {
  if (ids.length < c.ngramLen)
    throw new RangeError(`synthIdBits: ids: expected at least ngramLen (${c.ngramLen}) ids, got ${ids.length}`)
  const bit = bitsOf(c)
  return Array.from({ length: ids.length - c.ngramLen + 1 }, (_, i) => {
    const hash = hashOf(ids.slice(i, i + c.ngramLen))
    return c.keys.map((key) => bit(hashStep(hash, BigInt(key))))
  })
}
