import { setImmediate } from 'node:timers/promises'
import type { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers'
import { type BpeModel, mergeSteps } from './bpe-merges.js'
import { type RunPart, withoutDeadline } from './regex-deadline.js'

type Model = NonNullable<HuggingFaceTokenizer['model']>
type PreTokenizer = NonNullable<HuggingFaceTokenizer['pre_tokenizer']>

/** A computation that yields every few milliseconds. */
export type Steps<A> = Generator<void, A>

/** Runs steps to their end without a pause. */
export const runSteps = <A>(steps: Steps<A>): A => {
  for (let step = steps.next(); ; step = steps.next()) if (step.done) return step.value
}

const PAUSE_AFTER = 10 // milliseconds

/** Runs steps, and lets other work of the process run after every 10 ms. */
export const runStepsAsync = async <A>(steps: Steps<A>): Promise<A> => {
  let started = performance.now()
  for (let step = steps.next(); ; step = steps.next()) {
    if (step.done) return step.value
    if (performance.now() - started < PAUSE_AFTER) continue
    await setImmediate()
    started = performance.now()
  }
}

const CHUNK = 256 // words between two yields
const LONG_WORD = 1024 // characters

const hasSuffix = (model: Model): boolean =>
  Boolean(model.end_of_word_suffix) || Boolean((model as { continuing_subword_suffix?: unknown }).continuing_subword_suffix)

const isBpe = (model: Model): model is Model & BpeModel => 'bpe_ranks' in model && !hasSuffix(model)

/** The pre-tokenizers of a sequence, in order. */
const stagesOf = (preTokenizer: PreTokenizer): readonly PreTokenizer[] =>
  (preTokenizer as { tokenizers?: readonly PreTokenizer[] }).tokenizers ?? [preTokenizer]

/** Words of a normalized text: the pre-tokenizers run one after another, each on a few words at a time. */
function* preTokenize(preTokenizer: PreTokenizer, text: string, section: number, run: RunPart): Steps<string[]> {
  let words = [text]
  for (const stage of stagesOf(preTokenizer)) {
    const split: string[] = []
    for (let i = 0; i < words.length; i += CHUNK) {
      const chunk = words.slice(i, i + CHUNK)
      for (const word of run(() => stage._call(chunk, { section_index: section }))) split.push(word)
      yield
    }
    words = split
  }
  return words
}

/** The tokens with each run of unknown ones as one. */
const fuseUnknown = ({ tokens_to_ids: ids, unk_token_id: unknown }: Model, tokens: readonly string[]): string[] => {
  const isUnknown = (token: string | undefined) => token !== undefined && (ids.get(token) ?? unknown) === unknown
  return tokens.filter((token, i) => !(isUnknown(token) && isUnknown(tokens[i - 1])))
}

/** Vocabulary entries of a long word. */
function* longWordTokens(model: Model & BpeModel, word: string): Steps<string[]> {
  const tokens: string[] = []
  for (const symbol of yield* mergeSteps(model, word)) {
    if (model.tokens_to_ids.has(symbol)) tokens.push(symbol)
    else tokens.push(...model._call([symbol])) // a single character: bytes or the unknown token
  }
  return tokens
}

/**
 * Vocabulary entries of plain text, in which no added token is recognized; `section` is the index of the piece, since some
 * tokenizers mark the first.
 */
export function* tokenSteps(
  { normalizer, pre_tokenizer, model }: HuggingFaceTokenizer,
  text: string,
  section: number,
  unigram?: (text: string) => Steps<string[]>,
  run: RunPart = withoutDeadline
): Steps<string[]> {
  const normal = normalizer ? run(() => normalizer._call(text)) : text
  if (normal === '') return []
  const words = pre_tokenizer ? yield* preTokenize(pre_tokenizer, normal, section, run) : [normal]
  if (unigram) {
    const tokens: string[] = []
    for (const word of words) for (const token of yield* unigram(word)) tokens.push(token)
    return tokens
  }
  if (isBpe(model!)) {
    const tokens: string[] = []
    for (let i = 0; i < words.length; i++) {
      const word = words[i]!
      for (const token of word.length > LONG_WORD ? yield* longWordTokens(model!, word) : model!._call([word])) tokens.push(token)
      if (i % CHUNK === CHUNK - 1) yield
    }
    return model!.fuse_unk ? fuseUnknown(model!, tokens) : tokens
  }
  return model!._call(words)
}
