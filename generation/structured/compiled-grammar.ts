import type { Worker } from 'node:worker_threads'
import { InternVLError, issue } from '../../lib/error.js'
import { startThread } from '../../lib/threads/start-thread.js'
import type { Tokenizer } from '../../processors/text/tokenizer.js'
import { type CompileReply, type GrammarWorkerInput, MASK_STATE } from './mask-protocol.js'
import type { GrammarText } from './response-format.js'
import { type TokenTexts, tokenTexts } from './token-texts.js'

/** A grammar of the tokens of one tokenizer. */
export interface CompiledGrammar {
  /**
   * Words of 32 bits, one bit for each token that may follow `ids`, the tokens of an answer. The array is valid until the next call.
   * Throws a `RangeError` if the grammar does not accept `ids`.
   */
  readonly allowedAfter: (ids: readonly number[]) => Int32Array
  /** False after `dispose`, and after a mask that took too long or failed: every later mask is an error. */
  readonly isUsable: () => boolean
  readonly dispose: () => void
}

/** The parts of a loaded checkpoint that grammars depend on. */
export interface GrammarVocabulary {
  readonly tokenizer: Tokenizer
  /** Number of logits. */
  readonly vocabSize: number
  /** Tokens that may end an answer when the grammar is complete. */
  readonly eosTokenIds: readonly number[]
}

/** Milliseconds for compiling a grammar, and for one mask. */
const COMPILE_TIMEOUT = 30_000
const MASK_TIMEOUT = 20_000

interface JoinedTexts {
  readonly type: TokenTexts['type']
  readonly texts: string
}

const joinedTexts = new WeakMap<Tokenizer, Map<string, JoinedTexts>>()

const textsOf = (tokenizer: Tokenizer, specialTokens: readonly string[]): JoinedTexts => {
  const all = joinedTexts.get(tokenizer) ?? new Map<string, JoinedTexts>()
  joinedTexts.set(tokenizer, all)
  const key = specialTokens.join('\0')
  const known = all.get(key)
  if (known) return known
  const { type, texts } = tokenTexts(tokenizer, specialTokens)
  const joined = { type, texts: texts.join('\0') }
  all.set(key, joined)
  return joined
}

const compileReply = (worker: Worker, timeout: number): Promise<CompileReply> =>
  new Promise((resolve, reject) => {
    const refuse = (reason: string) => resolve({ compiled: false, reason })
    const timer = setTimeout(() => refuse(`its compilation takes longer than ${timeout / 1000} s; simplify the grammar`), timeout)
    worker.once('message', resolve)
    worker.once('error', reject)
    worker.once('exit', () => refuse('its compilation ended early'))
    worker.once('message', () => clearTimeout(timer))
    worker.once('exit', () => clearTimeout(timer))
  })

/**
 * Compiles a grammar in a worker thread, which then computes its masks. Throws a `RangeError` with the compiler's reason for a grammar
 * that is wrong or needs too long.
 */
export const compileGrammar = async (
  grammar: GrammarText,
  { tokenizer, vocabSize, eosTokenIds }: GrammarVocabulary,
  timeout = COMPILE_TIMEOUT
): Promise<CompiledGrammar> => {
  const shared = new SharedArrayBuffer(4 * (1 + Math.ceil(vocabSize / 32)))
  const { type: vocabularyType, texts } = textsOf(tokenizer, grammar.specialTokens ?? [])
  const input: GrammarWorkerInput = { grammar, vocabularyType, texts, vocabSize, eosTokenIds, shared }
  const worker = startThread(new URL('./grammar-worker', import.meta.url), input)
  const reply = await compileReply(worker, timeout)
  if (!reply.compiled) {
    void worker.terminate()
    throw new RangeError(`responseFormat: the grammar is not usable: ${reply.reason}`)
  }
  worker.unref()
  const words = new Int32Array(shared)
  let isUsable = true
  const end = (): void => {
    isUsable = false
    void worker.terminate()
  }
  worker.on('error', end)
  return {
    isUsable: () => isUsable,
    allowedAfter: (ids) => {
      Atomics.store(words, 0, MASK_STATE.pending)
      worker.postMessage(ids)
      if (!isUsable || Atomics.wait(words, 0, MASK_STATE.pending, MASK_TIMEOUT) === 'timed-out') {
        end()
        throw new InternVLError([
          issue('Grammar', 'responseFormat: the grammar takes too long for a token; simplify the grammar.')
        ])
      }
      if (Atomics.load(words, 0) === MASK_STATE.rejected)
        throw new RangeError(
          'responseFormat: the tokens so far do not fit the format; leave forcedTokens and similar options out'
        )
      if (Atomics.load(words, 0) === MASK_STATE.stuck)
        throw new RangeError(
          'responseFormat: no token can follow; the format asks for a text that is no JSON, such as a quote in a pattern'
        )
      return words.subarray(1)
    },
    dispose: end
  }
}
