/** Rules of a compiled normalization: a double-array trie of texts, and the texts that replace them. */
interface Charsmap {
  readonly units: Uint32Array
  /** NUL-terminated texts; the value of a rule is the offset of its text. */
  readonly texts: Uint8Array
}

const REPLACEMENT = Uint8Array.of(0xef, 0xbf, 0xbd) // U+FFFD in UTF-8

/** Bytes: the size of the trie, the trie, the texts. */
const parse = (bytes: Uint8Array): Charsmap => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const size = view.getUint32(0, true)
  return {
    units: Uint32Array.from({ length: size / 4 }, (_, i) => view.getUint32(4 + 4 * i, true)),
    texts: bytes.subarray(4 + size)
  }
}

/** The longest rule that matches at a position: its length in bytes, and the offset of its text. Source: darts-clone's `commonPrefixSearch`. */
const longestRule = (
  { units }: Charsmap,
  bytes: Uint8Array,
  start: number
): readonly [length: number, text: number] | undefined => {
  const offsetOf = (unit: number) => (unit >>> 10) << ((unit & 0x200) >>> 6)
  let found: readonly [number, number] | undefined
  let node = offsetOf(units[0]!)
  for (let i = start; i < bytes.length; i++) {
    node ^= bytes[i]!
    const unit = units[node]!
    if ((unit & 0x800000ff) >>> 0 !== bytes[i]!) break
    node ^= offsetOf(unit)
    if (((unit >>> 8) & 1) === 1) found = [i - start + 1, units[node]! & 0x7fffffff]
  }
  return found
}

const characterLength = (byte: number): number => (byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4)

/**
 * SentencePiece's Unicode normalization by a compiled map, `precompiled_charsmap`: at each position the longest rule replaces its
 * text; other characters stay. Source: `Normalizer::NormalizePrefix` (sentencepiece 0.2).
 */
export const charsmapNormalizer = (compiled: Uint8Array): ((text: string) => string) => {
  const map = parse(compiled)
  return (text) => {
    const bytes = new TextEncoder().encode(text)
    const pieces: Uint8Array[] = []
    for (let at = 0; at < bytes.length; ) {
      const rule = longestRule(map, bytes, at)
      if (rule) {
        const [length, start] = rule
        pieces.push(map.texts.subarray(start, map.texts.indexOf(0, start)))
        at += length
      } else {
        const length = characterLength(bytes[at]!)
        const character = bytes.subarray(at, at + length)
        pieces.push(length === 3 && Buffer.compare(character, REPLACEMENT) === 0 ? REPLACEMENT : character)
        at += length
      }
    }
    return Buffer.concat(pieces).toString('utf8')
  }
}
