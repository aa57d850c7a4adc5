import type { Tokenizer } from '../../processors/text/tokenizer.js'

/** Encoding of bytes in the texts of a vocabulary: as GPT-2's characters for bytes, as SentencePiece's `<0x0A>`, or as they are. */
export type VocabularyType = 'byte_level' | 'byte_fallback' | 'raw'

/** The texts of all tokens, for the grammar compiler. */
export interface TokenTexts {
  readonly type: VocabularyType
  /** By id; special tokens and unused ids have no text: no grammar accepts them. */
  readonly texts: readonly string[]
}

/** GPT-2's character of each byte. Source: `bytes_to_unicode` (transformers 5.24). */
const byteCharacters: readonly string[] = (() => {
  const isPrintable = (b: number): boolean => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174
  let next = 256
  return Array.from({ length: 256 }, (_, b) => String.fromCharCode(isPrintable(b) ? b : next++))
})()

const toByteLevel = (text: string): string => Array.from(Buffer.from(text), (byte) => byteCharacters[byte]!).join('')

const vocabularyType = ({ idOf }: Tokenizer): VocabularyType => {
  if (idOf('Ġ') !== undefined) return 'byte_level'
  return idOf('<0x0A>') === undefined ? 'raw' : 'byte_fallback'
}

/**
 * The texts of a tokenizer's tokens, without special tokens other than those of `specialTokens`. Added tokens are written as they are in every
 * vocabulary, so those are encoded here.
 */
export const tokenTexts = (tokenizer: Tokenizer, specialTokens: readonly string[] = []): TokenTexts => {
  const type = vocabularyType(tokenizer)
  const texts = Array.from({ length: tokenizer.vocabSize }, (_, id) =>
    tokenizer.isSpecial(id) ? '' : (tokenizer.tokenOf(id) ?? '')
  )
  for (const { id, content, special } of tokenizer.addedTokens)
    if (id < texts.length)
      texts[id] = special && !specialTokens.includes(content) ? '' : type === 'byte_level' ? toByteLevel(content) : content
  return { type, texts }
}
