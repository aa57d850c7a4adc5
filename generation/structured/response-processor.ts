import type { Tokenizer } from '../../processors/text/tokenizer.js'
import type { InternVLCheckpoint } from '../checkpoint/load.js'
import type { LogitsProcessor } from '../decoding/generation-options.js'
import { type CompiledGrammar, compileGrammar } from './compiled-grammar.js'
import { type GrammarText, grammarText, type ResponseFormat } from './response-format.js'

/** The logits processors of a response format. The caller calls `release` after the answer. */
export interface ResponseConstraint {
  readonly processors: readonly LogitsProcessor[]
  readonly release: () => void
}

/** A grammar that answers share; grammars without answers are kept for the next ones. */
interface SharedGrammar {
  readonly compiled: Promise<CompiledGrammar>
  users: number
}

/** Grammars without answers that are kept, for each tokenizer: each has a thread of its own. */
const KEPT_GRAMMARS = 4

const grammars = new WeakMap<Tokenizer, Map<string, SharedGrammar>>()

const grammarsOf = (tokenizer: Tokenizer): Map<string, SharedGrammar> => {
  const known = grammars.get(tokenizer) ?? new Map<string, SharedGrammar>()
  grammars.set(tokenizer, known)
  return known
}

/** Disposes the grammars without answers that were used least recently. */
const trim = (all: Map<string, SharedGrammar>): void => {
  const idle = [...all].filter(([, { users }]) => users === 0)
  for (const [key, { compiled }] of idle.slice(0, Math.max(0, idle.length - KEPT_GRAMMARS))) {
    all.delete(key)
    void compiled.then(({ dispose }) => dispose())
  }
}

const acquire = async (
  internvl: InternVLCheckpoint,
  grammar: GrammarText
): Promise<{ readonly compiled: CompiledGrammar; readonly release: () => void }> => {
  const { config, generation } = internvl
  const { tokenizer } = internvl.processor
  const all = grammarsOf(tokenizer)
  const key = JSON.stringify([grammar, generation.eosTokenIds])
  const { vocabSize } = config.textConfig
  const shared = all.get(key) ?? {
    compiled: compileGrammar(grammar, { tokenizer, vocabSize, eosTokenIds: generation.eosTokenIds ?? [] }),
    users: 0
  }
  all.delete(key)
  all.set(key, shared) // now the last
  shared.users++
  const release = (): void => {
    shared.users--
    trim(all)
  }
  const forget = (): void => {
    if (all.get(key) === shared) all.delete(key)
  }
  try {
    const compiled = await shared.compiled
    if (compiled.isUsable()) return { compiled, release }
  } catch (error) {
    forget()
    throw error
  }
  forget() // the grammar failed in an earlier answer
  return acquire(internvl, grammar)
}

const isAllowed = (words: Int32Array, id: number): boolean => ((words[id >> 5] ?? 0) & (1 << (id & 31))) !== 0

/**
 * Logits of the tokens that the grammar allows, minus infinity for the others. If all allowed tokens are minus infinity already, by
 * another option, they are equal instead: the answer keeps its form.
 */
export const maskLogits = (logits: Float32Array, words: Int32Array): Float32Array => {
  const out = logits.slice()
  let isOpen = false
  for (let id = 0; id < out.length; id++)
    if (!isAllowed(words, id)) out[id] = Number.NEGATIVE_INFINITY
    else if (out[id]! > Number.NEGATIVE_INFINITY) isOpen = true
  return isOpen ? out : out.map((_, id) => (isAllowed(words, id) ? 0 : Number.NEGATIVE_INFINITY))
}

/**
 * The logits processors that keep an answer in a form; none without a format. Throws a `RangeError` for a format that is wrong, with
 * the reason.
 */
export const responseConstraint = async (
  internvl: InternVLCheckpoint,
  format: ResponseFormat | undefined
): Promise<ResponseConstraint> => {
  if (format === undefined) return { processors: [], release: () => undefined }
  const { compiled, release } = await acquire(internvl, grammarText(format))
  const processor: LogitsProcessor = (ids, logits, promptLength) =>
    maskLogits(logits, compiled.allowedAfter(ids.slice(promptLength)))
  return { processors: [processor], release }
}
