/** A random generator, determined by its seeds. */
export interface Random {
  /** A number in [low, high), by default [0, 1). */
  readonly uniform: (low?: number, high?: number) => number
  /** An integer from `low` to `high`, inclusive. */
  readonly integer: (low: number, high: number) => number
  readonly choice: <A>(list: readonly A[]) => A
  /** A key, with a probability proportional to its weight (0 or more). */
  readonly weighted: <K extends string>(weights: Readonly<Record<K, number>>) => K
  /** A shuffled copy of the list. */
  readonly shuffled: <A>(list: readonly A[]) => A[]
}

/** The finalizer of MurmurHash3: every input bit changes half of the output bits. */
const mix = (value: number): number => {
  let h = Math.imul(value ^ (value >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}

/** A random generator for a list of integer seeds: `random(seed, epoch, index)`. */
export const random = (...seeds: readonly number[]): Random => {
  const wrong = seeds.find((seed) => !Number.isSafeInteger(seed))
  if (wrong !== undefined) throw new RangeError(`random: seeds are whole numbers, got ${wrong}`)
  const key = seeds.reduce((h, seed) => mix((mix(h ^ seed) + Math.floor(seed / 2 ** 32) + 0x9e3779b9) | 0), seeds.length)
  let count = 0
  const next = (): number => mix(key ^ mix(Math.imul(++count, 0x9e3779b1) ^ 0x5bd1e995)) / 2 ** 32
  const uniform = (low = 0, high = 1): number => low + (high - low) * next()
  const integer = (low: number, high: number): number => low + Math.floor(next() * (high - low + 1))
  return {
    uniform,
    integer,
    choice: (list) => {
      if (list.length === 0) throw new RangeError('choice: the list is empty')
      return list[integer(0, list.length - 1)]!
    },
    weighted: (weights) => {
      const entries = (Object.entries(weights) as [keyof typeof weights, number][]).filter(([, weight]) => weight > 0)
      if (entries.length === 0) throw new RangeError('weighted: no weight is above 0')
      const total = entries.reduce((sum, [, weight]) => sum + weight, 0)
      const at = uniform(0, total)
      let sum = 0
      for (const [key, weight] of entries) {
        sum += weight
        if (at < sum) return key
      }
      return entries.at(-1)![0]
    },
    shuffled: (list) => {
      const result = [...list]
      for (let i = result.length - 1; i > 0; i--) {
        const j = integer(0, i)
        ;[result[i], result[j]] = [result[j]!, result[i]!]
      }
      return result
    }
  }
}
