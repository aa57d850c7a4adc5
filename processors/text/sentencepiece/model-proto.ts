import * as E from 'fp-ts/lib/Either.js'
import { type Issues, invalid } from '../../../lib/error.js'
import { protobufFields } from '../../../lib/protobuf.js'

/** Kinds of pieces, by their numbers in `sentencepiece_model.proto`. */
export const pieceTypes = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const

export interface SentencePiece {
  readonly piece: string
  readonly score: number
  readonly type: number
}

/** The fields of a SentencePiece model that encoding and decoding depend on. */
export interface SentencePieceModel {
  readonly pieces: readonly SentencePiece[]
  readonly modelType: 'unigram' | 'bpe'
  readonly byteFallback: boolean
  readonly unkId: number
  readonly unkPiece: string
  /** Rules of Unicode normalization, compiled; empty for none. */
  readonly charsmap: Uint8Array
  readonly addDummyPrefix: boolean
  readonly removeExtraWhitespaces: boolean
}

const text = (value: number | Uint8Array): string => new TextDecoder().decode(value as Uint8Array)

const pieceOf = (bytes: Uint8Array): SentencePiece => {
  const fields = new Map(protobufFields(bytes))
  return {
    piece: text(fields.get(1) ?? new Uint8Array(0)),
    score: (fields.get(2) as number | undefined) ?? 0,
    type: (fields.get(3) as number | undefined) ?? pieceTypes.normal
  }
}

const modelTypes: Readonly<Record<number, SentencePieceModel['modelType']>> = { 1: 'unigram', 2: 'bpe' }

/** Field numbers of `TrainerSpec` and `NormalizerSpec`. */
const trainer = { modelType: 3, whitespaceAsSuffix: 24, byteFallback: 35, unkId: 40, unkPiece: 45 } as const
const normalizer = { charsmap: 2, addDummyPrefix: 3, removeExtraWhitespaces: 4, escapeWhitespaces: 5 } as const

/**
 * Parses a SentencePiece model, `tokenizer.model`. Errors: a file that is no such model, and kinds of models without an equivalent
 * in tokenizer.json (words, characters, whitespace as a suffix).
 * Source: `sentencepiece_model.proto` (sentencepiece 0.2).
 */
export const parseModel = (bytes: Uint8Array, file: string): E.Either<Issues, SentencePieceModel> => {
  const refuse = (why: string) => invalid('SentencePiece', `${file}: ${why}`, { file })
  try {
    const top = [...protobufFields(bytes)]
    const section = (number: number) =>
      new Map(top.flatMap(([n, value]) => (n === number ? [...protobufFields(value as Uint8Array)] : [])))
    const [t, n] = [section(2), section(3)]
    const pieces = top.flatMap(([number, value]) => (number === 1 ? [pieceOf(value as Uint8Array)] : []))
    const modelType = modelTypes[(t.get(trainer.modelType) as number | undefined) ?? 1]
    if (pieces.length === 0) return refuse('it is not a SentencePiece model (no pieces); restore the file')
    if (!modelType) return refuse('its model type is neither unigram nor bpe; save a tokenizer.json with Transformers')
    if (t.get(trainer.whitespaceAsSuffix) || n.get(normalizer.escapeWhitespaces) === 0)
      return refuse('it treats whitespace as a suffix or leaves it as it is; save a tokenizer.json with Transformers')
    const isOn = (value: number | Uint8Array | undefined) => value !== 0 // true unless given
    return E.right({
      pieces,
      modelType,
      byteFallback: t.get(trainer.byteFallback) === 1,
      unkId: (t.get(trainer.unkId) as number | undefined) ?? 0,
      unkPiece: t.has(trainer.unkPiece) ? text(t.get(trainer.unkPiece)!) : '<unk>',
      charsmap: (n.get(normalizer.charsmap) as Uint8Array | undefined) ?? new Uint8Array(0),
      addDummyPrefix: isOn(n.get(normalizer.addDummyPrefix)),
      removeExtraWhitespaces: isOn(n.get(normalizer.removeExtraWhitespaces))
    })
  } catch (error) {
    return refuse(`it is not a SentencePiece model (${(error as Error).message}); restore the file`)
  }
}
