/** The parts of a Unigram model in tokenizer.json. */
export interface UnigramJson {
  readonly vocab: readonly (readonly [piece: string, score: number])[]
  readonly unk_id: number | null
  readonly byte_fallback?: boolean | undefined
}

/** Pieces of one text by their lengths in bytes, in a trie over UTF-16 units. */
interface TrieNode {
  readonly next: Map<number, TrieNode>
  /** Index of the piece that ends here. */
  id?: number
}

const STEP = 4096 // characters between two yields
const isByte = (piece: string): boolean => /^<0x[\dA-F]{2}>$/.test(piece)

const byteTokens = (text: string): readonly string[] =>
  Array.from(new TextEncoder().encode(text), (byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`)

const trieOf = (vocab: UnigramJson['vocab'], isPiece: (piece: string, id: number) => boolean): TrieNode => {
  const root: TrieNode = { next: new Map() }
  for (const [id, [piece]] of vocab.entries()) {
    if (piece === '' || !isPiece(piece, id)) continue
    let node = root
    for (let i = 0; i < piece.length; i++) {
      const unit = piece.charCodeAt(i)
      const child = node.next.get(unit) ?? { next: new Map() }
      node.next.set(unit, child)
      node = child
    }
    node.id = id
  }
  return root
}

const f32 = Math.fround

/**
 * Segmentation of normalized text by a unigram language model: the pieces with the greatest sum of scores, in float32, by the Viterbi
 * algorithm. `special` names control tokens, which text never yields. Unknown characters become bytes where the model has
 * them (`byte_fallback`), else one unknown token for each run. Yields every few milliseconds.
 * Source: `unigram::Model::EncodeOptimized` (sentencepiece 0.2).
 */
export const unigramEncoder = ({ vocab, unk_id, byte_fallback = false }: UnigramJson, special: ReadonlySet<string>) => {
  const root = trieOf(vocab, (piece, id) => id !== unk_id && !special.has(piece) && !(byte_fallback && isByte(piece)))
  const scores = vocab.filter(([piece], id) => id !== unk_id && !special.has(piece) && !isByte(piece)).map(([, score]) => score)
  const unknownScore = f32(scores.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY) - 10)
  const unknown = vocab[unk_id ?? 0]![0]
  return function* (text: string): Generator<void, string[]> {
    const [best, from, pieceAt] = [
      new Float32Array(text.length + 1),
      new Int32Array(text.length + 1).fill(-1),
      new Int32Array(text.length + 1)
    ]
    for (let start = 0; start < text.length; ) {
      if (start % STEP === STEP - 1) yield
      const length = text.codePointAt(start)! > 0xffff ? 2 : 1
      let isCovered = false
      const offer = (end: number, id: number, score: number): void => {
        const candidate = f32(f32(score) + best[start]!)
        if (from[end] !== -1 && candidate <= best[end]!) return
        best[end] = candidate
        from[end] = start
        pieceAt[end] = id
      }
      let node: TrieNode | undefined = root
      for (let i = start; i < text.length && node; i++) {
        node = node.next.get(text.charCodeAt(i))
        if (node?.id === undefined) continue
        offer(i + 1, node.id, vocab[node.id]![1])
        if (i + 1 - start === length) isCovered = true
      }
      if (!isCovered) offer(start + length, -1, unknownScore)
      start += length
    }
    const reversed: string[][] = []
    for (let end = text.length; end > 0; end = from[end]!) {
      const id = pieceAt[end]!
      if (id >= 0) reversed.push([vocab[id]![0]])
      else if (byte_fallback) reversed.push([...byteTokens(text.slice(from[end]!, end))])
      else if (reversed.at(-1)?.[0] !== unknown) reversed.push([unknown])
    }
    return reversed.reverse().flat()
  }
}
