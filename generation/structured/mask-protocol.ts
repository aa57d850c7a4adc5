import type { GrammarText } from './response-format.js'
import type { VocabularyType } from './token-texts.js'

/** Data that the worker thread of a grammar starts with. */
export interface GrammarWorkerInput {
  readonly grammar: GrammarText
  readonly vocabularyType: VocabularyType
  /** Texts of the tokens, separated by `\0`. */
  readonly texts: string
  /** Number of logits. */
  readonly vocabSize: number
  readonly eosTokenIds: readonly number[]
  /** State of the last mask, then the mask: one bit a token. */
  readonly shared: SharedArrayBuffer
}

/** First word of the shared memory. */
export const MASK_STATE = { pending: 0, ready: 1, rejected: 2, stuck: 3 } as const

/** The first message of the worker. */
export type CompileReply = { readonly compiled: true } | { readonly compiled: false; readonly reason: string }
