/** The parts of a BPE model that merging reads; `bpe_ranks` maps JSON pairs of symbols to the rank of their merge. */
export interface BpeModel {
  readonly bpe_ranks: ReadonlyMap<string, number>
}

/** A possible merge of the symbol `a` at index `left` with its right neighbour `b`. */
interface Merge {
  readonly rank: number
  readonly left: number
  readonly a: string
  readonly b: string
}

const isBefore = (a: Merge, b: Merge): boolean => a.rank < b.rank || (a.rank === b.rank && a.left < b.left)

/** Binary heap of merges: lowest rank first, then leftmost. */
const mergeHeap = () => {
  const heap: Merge[] = []
  const push = (merge: Merge): void => {
    let i = heap.push(merge) - 1
    for (let parent = (i - 1) >> 1; i > 0 && isBefore(merge, heap[parent]!); parent = (i - 1) >> 1) {
      heap[i] = heap[parent]!
      i = parent
    }
    heap[i] = merge
  }
  const pop = (): Merge | undefined => {
    const first = heap[0]
    const last = heap.pop()
    if (!last || heap.length === 0) return first
    let i = 0
    for (let child = 1; child < heap.length; child = 2 * i + 1) {
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++
      if (!isBefore(heap[child]!, last)) break
      heap[i] = heap[child]!
      i = child
    }
    heap[i] = last
    return first
  }
  return { push, pop }
}

const STEP = 2048 // merges between two yields, about two milliseconds

/**
 * Byte-pair encoding of one word, with a yield every few milliseconds: the symbols that remain after all merges. Equal to the BPE
 * of @huggingface/tokenizers, which encodes a word of a million characters in one uninterrupted call.
 */
export function* mergeSteps({ bpe_ranks: ranks }: BpeModel, word: string): Generator<void, string[]> {
  const symbols: (string | undefined)[] = Array.from(word)
  const next = Int32Array.from(symbols, (_, i) => i + 1)
  const previous = Int32Array.from(symbols, (_, i) => i - 1)
  const { push, pop } = mergeHeap()
  const pushMerge = (left: number): void => {
    const [a, b] = [symbols[left], symbols[next[left] ?? -1]]
    if (a === undefined || b === undefined) return
    const rank = ranks.get(JSON.stringify([a, b]))
    if (rank !== undefined) push({ rank, left, a, b })
  }
  for (let i = 0; i < symbols.length; i++) {
    if (i % STEP === STEP - 1) yield
    pushMerge(i)
  }
  let steps = 0
  for (let merge = pop(); merge; merge = pop()) {
    if (++steps % STEP === 0) yield
    const { left, a, b } = merge
    const right = next[left]!
    if (symbols[left] !== a || symbols[right] !== b) continue // one of them was merged already
    symbols[left] = a + b
    symbols[right] = undefined
    next[left] = next[right]!
    if (next[left]! < symbols.length) previous[next[left]!] = left
    pushMerge(left)
    if (previous[left]! >= 0) pushMerge(previous[left]!)
  }
  return symbols.filter((symbol) => symbol !== undefined)
}
