import type { LogitsProcessor } from './generation-options.js'

const minusInfinity = Number.NEGATIVE_INFINITY

/** `softmax(logits)`, `[V] → [V]`, in float64. */
export const softmax = (logits: ArrayLike<number>): Float64Array => {
  let max = minusInfinity
  for (let i = 0; i < logits.length; i++) if (logits[i]! > max) max = logits[i]!
  const out = new Float64Array(logits.length)
  let sum = 0
  for (let i = 0; i < out.length; i++) {
    out[i] = Math.exp(logits[i]! - max)
    sum += out[i]!
  }
  return out.map((x) => x / sum)
}

/** Indices of the `k` largest values in descending order; ties keep the order of the indices. O(V) for small k. */
export const topIndices = (values: ArrayLike<number>, k: number): readonly number[] => {
  const better = (a: number, b: number) => values[b]! - values[a]! || a - b
  if (k > 256) return [...Array(values.length).keys()].sort(better).slice(0, k) // insertion sort would be slower
  const top: number[] = []
  for (let i = 0; i < values.length; i++) {
    if (top.length === k && !(values[i]! > values[top[k - 1]!]!)) continue
    let at = top.length
    while (at > 0 && values[i]! > values[top[at - 1]!]!) at--
    top.splice(at, 0, i)
    if (top.length > k) top.pop()
  }
  return top
}

const isPossible = (logit: number): boolean => logit > minusInfinity

const indicesOf = (values: Float32Array, holds: (x: number) => boolean): number[] => {
  const found: number[] = []
  for (let i = 0; i < values.length; i++) if (holds(values[i]!)) found.push(i)
  return found
}

/** Index of the first value at which the running sum satisfies `enough`. */
const countUntil = (values: ArrayLike<number>, enough: (sum: number) => boolean): number => {
  let sum = 0
  for (let i = 0; i < values.length; i++) {
    sum += values[i]!
    if (enough(sum)) return i
  }
  return values.length
}

/** Forbids tokens for which `isKept` is false, but never the `minKept` most probable ones. */
const keepWhere = (logits: Float32Array, isKept: (i: number) => boolean, minKept: number): Float32Array => {
  const safe = new Set(topIndices(logits, minKept))
  return logits.map((x, i) => (isKept(i) || safe.has(i) ? x : minusInfinity))
}

/** `logits / temperature`, without the largest logit where that would be infinite: a temperature near 0 is greedy. */
export const temperatureScale =
  (temperature: number): LogitsProcessor =>
  (_ids, logits) => {
    const largest = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY)
    const isInRange = Math.abs(Math.fround(largest / temperature)) < Number.POSITIVE_INFINITY || !Number.isFinite(largest)
    return isInRange ? logits.map((x) => x / temperature) : logits.map((x) => (x === largest ? 0 : (x - largest) / temperature))
  }

/** Top-k filter: keeps the k largest logits, and those equal to the smallest of them. Source: `TopKLogitsWarper` (transformers 5.24). */
export const topKFilter =
  (topK: number, minKept = 1): LogitsProcessor =>
  (_ids, logits) => {
    const k = Math.min(Math.max(topK, minKept), logits.length)
    const limit = k > 256 ? logits.slice().sort()[logits.length - k]! : logits[topIndices(logits, k).at(-1)!]!
    return logits.map((x) => (x < limit ? minusInfinity : x))
  }

/**
 * Top-p (nucleus) filter: keeps the smallest set of most probable tokens whose probabilities sum to at least `topP`; of equal
 * probabilities the later tokens are kept.
 * Source: Holtzman et al. 2020; `TopPLogitsWarper` (transformers 5.24).
 */
export const topPFilter =
  (topP: number, minKept = 1): LogitsProcessor =>
  (_ids, logits) => {
    const sorted = logits.filter(isPossible).sort() // ascending
    const dropped = countUntil(softmax(sorted), (sum) => sum > 1 - topP)
    const first = Math.max(0, Math.min(dropped, sorted.length - minKept))
    const limit = sorted[first]!
    let equalsToDrop = first - sorted.indexOf(limit)
    return logits.map((x) => (x < limit || (x === limit && equalsToDrop-- > 0) ? minusInfinity : x))
  }

/** Min-p filter: keeps tokens with at least `minP` times the largest probability. Source: `MinPLogitsWarper` (transformers 5.24). */
export const minPFilter =
  (minP: number, minKept = 1): LogitsProcessor =>
  (_ids, logits) => {
    const probabilities = softmax(logits)
    const limit = minP * probabilities.reduce((a, b) => Math.max(a, b))
    return keepWhere(logits, (i) => probabilities[i]! >= limit, minKept)
  }

/** Entropy of a distribution, in nats. */
const entropyOf = (probabilities: Float64Array): number =>
  probabilities.reduce((sum, p) => (p > 0 ? sum - p * Math.log(p) : sum), 0)

/**
 * Epsilon filter: keeps tokens with at least this probability.
 * Source: Hewitt et al. 2022; `EpsilonLogitsWarper` (transformers 5.24).
 */
export const epsilonFilter =
  (epsilon: number, minKept = 1): LogitsProcessor =>
  (_ids, logits) => {
    const probabilities = softmax(logits)
    return keepWhere(logits, (i) => probabilities[i]! >= epsilon, minKept)
  }

/**
 * Eta filter: keeps tokens with at least the smaller of `epsilon` and `√epsilon · exp(−entropy)` as their probability.
 * Source: Hewitt et al. 2022; `EtaLogitsWarper` (transformers 5.24).
 */
export const etaFilter =
  (epsilon: number, minKept = 1): LogitsProcessor =>
  (_ids, logits) => {
    const probabilities = softmax(logits)
    const limit = Math.min(epsilon, Math.sqrt(epsilon) * Math.exp(-entropyOf(probabilities)))
    return keepWhere(logits, (i) => probabilities[i]! >= limit, minKept)
  }

/** Tokens that `topHFilter` considers. */
const TOP_H_TOKENS = 100

/**
 * Top-h filter: of the 100 most probable tokens keeps the first ones whose entropy terms `−p log p` sum to at most `topH` times the
 * entropy; at least the most probable. Source: `TopHLogitsWarper` (transformers 5.24).
 */
export const topHFilter =
  (topH: number): LogitsProcessor =>
  (_ids, logits) => {
    const order = topIndices(logits, Math.min(TOP_H_TOKENS, logits.length))
    const probabilities = softmax(order.map((i) => logits[i]!))
    const limit = entropyOf(probabilities) * topH
    const count = countUntil(
      probabilities.map((p) => (p > 0 ? -p * Math.log(p) : 0)),
      (sum) => sum > limit
    )
    const chosen = new Set(order.slice(0, Math.max(1, count)))
    return logits.map((x, i) => (chosen.has(i) ? x : minusInfinity))
  }

/**
 * Locally typical filter: orders tokens by the distance of their information content from the entropy, and keeps the smallest
 * set whose probabilities sum to at least `mass`.
 * Source: Meister et al. 2022; `TypicalLogitsWarper` (transformers 5.24).
 */
export const typicalFilter =
  (mass: number, minKept = 1): LogitsProcessor =>
  (_ids, logits) => {
    const probabilities = softmax(logits)
    const entropy = entropyOf(probabilities)
    const distance = probabilities.map((p) => Math.abs(-Math.log(p) - entropy))
    const order = indicesOf(logits, isPossible).sort((a, b) => distance[a]! - distance[b]! || a - b)
    const probabilitiesInOrder = order.map((i) => probabilities[i]!)
    const last = countUntil(probabilitiesInOrder, (sum) => sum >= mass)
    const limit = distance[order[Math.min(last, order.length - 1)]!]!
    const safe = new Set(order.slice(0, minKept))
    return logits.map((x, i) => (distance[i]! <= limit || safe.has(i) ? x : minusInfinity))
  }
