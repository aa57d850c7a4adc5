import { parentPort, workerData } from 'node:worker_threads'
import type { CompiledGrammar, Grammar, GrammarCompiler, GrammarMatcher } from '@mlc-ai/web-xgrammar'
import { type CompileReply, type GrammarWorkerInput, MASK_STATE } from './mask-protocol.js'
import type { GrammarText, ToolCallFormat } from './response-format.js'
import { loadXGrammar } from './xgrammar.js'

// Worker thread of one grammar: compiles the grammar, then computes masks of allowed tokens. The compiler ends its WebAssembly module
// where a grammar is wrong, and may take long: in a thread of its own it harms nothing else.

/** Matchers of rows that are decoded at once; a further row takes the matcher that was used least recently. */
const MAX_MATCHERS = 64

interface Row {
  /** A matcher of each grammar; a token must suit all. */
  readonly matchers: readonly GrammarMatcher[]
  readonly tokens: number[]
}

let lastOutput = ''
const keepOutput = (...texts: readonly unknown[]): void => {
  const text = texts.join(' ')
  if (!text.startsWith('Aborted')) lastOutput = text
}
Object.assign(console, { log: keepOutput, warn: keepOutput, error: keepOutput })

/** Reason of a failed compilation, which the compiler prints before it ends itself. */
const reasonOf = (error: unknown): string => {
  const text = lastOutput || (error instanceof Error ? error.message : String(error))
  return (
    text
      .replace(/^.*?\.cc:\d+: /s, '')
      .replace(/^Check failed: .*? is (true|false): /s, '')
      .trim()
      .replace(/\.$/, '') || 'it cannot be compiled'
  )
}

// `0.5` as a bound of a number becomes a pattern whose dot is any character
const NUMBER_DOT = /(?<="\d*" )\[\\0-\\U0010ffff\](?= "\d*")/g
// `.` of a pattern, and negated classes of characters, would take quotes and control characters; literals stay as they are
const OPEN_CLASS = /"(?:\\.|[^"\\])*"|\[\\0-\\U0010ffff\]|\[\^/g
const OUTSIDE_JSON = '[^\\0-\\x1f\\"\\\\'

const narrowed = (match: string): string => {
  if (match.startsWith('"')) return match
  return match === '[^' ? OUTSIDE_JSON : `${OUTSIDE_JSON}]`
}

/**
 * The grammar of a schema, without free white space, which a model could repeat without end. The compiler's classes of characters that
 * JSON must escape are narrowed.
 */
const schemaGrammar = async (schema: string, isStrict: boolean): Promise<string> => {
  const grammar = await X.Grammar.fromJSONSchema(schema, false, -1, undefined, isStrict)
  return grammar.toString().replace(NUMBER_DOT, '"."').replace(OPEN_CLASS, narrowed)
}

const sequenceOf = ({ begin, content, end }: { readonly begin: string; readonly content: object; readonly end: string }) => {
  const close = end === '' ? [] : [{ type: 'const_string', value: end }]
  return { type: 'sequence', elements: [{ type: 'const_string', value: begin }, content, ...close] }
}

const structuralTag = (format: object): Promise<Grammar> =>
  X.Grammar.fromStructuralTag(JSON.stringify({ type: 'structural_tag', format }))

/** One call and nothing else, or calls in a text: a tag ends a call, so that a form without an end has one call at most. */
const toolCallGrammar = async ({ trigger, tags, isRequired, isSingle }: ToolCallFormat): Promise<Grammar> => {
  const calls = []
  for (const { begin, schema, end } of tags) {
    const grammar = await schemaGrammar(JSON.stringify(schema), true)
    calls.push({ type: 'tag', begin, content: { type: 'grammar', grammar }, end })
  }
  if (isRequired && isSingle) return structuralTag({ type: 'or', elements: calls.map(sequenceOf) })
  return structuralTag({
    type: 'triggered_tags',
    triggers: [trigger],
    tags: calls,
    at_least_one: isRequired,
    stop_after_first: isSingle
  })
}

/** The grammars of a format. Besides that of a schema stands that of JSON: patterns of the schema may accept what JSON must escape. */
const toGrammars = async ({ kind, text, isStrict }: GrammarText): Promise<readonly Grammar[]> => {
  if (kind === 'schema')
    return [await X.Grammar.fromEBNF(await schemaGrammar(text, isStrict)), await X.Grammar.fromJSONSchema('true', true)]
  if (kind === 'grammar') return [await X.Grammar.fromEBNF(text)]
  return [
    await (kind === 'regex'
      ? structuralTag({ type: 'regex', pattern: text })
      : toolCallGrammar(JSON.parse(text) as ToolCallFormat))
  ]
}

const { grammar, vocabularyType, texts, vocabSize, eosTokenIds, shared } = workerData as GrammarWorkerInput
const words = new Int32Array(shared)
const rows: Row[] = []
const port = parentPort!
const X = await loadXGrammar()

const compile = async (): Promise<readonly CompiledGrammar[]> => {
  const parsed = await toGrammars(grammar) // first: a wrong grammar needs no vocabulary
  const info = await X.TokenizerInfo.createTokenizerInfo(texts.split('\0'), vocabularyType, false, vocabSize, [...eosTokenIds])
  const compiler: GrammarCompiler = await X.GrammarCompiler.createGrammarCompiler(info, false)
  const compiled: CompiledGrammar[] = []
  for (const one of parsed) compiled.push(await compiler.compileGrammar(one))
  return compiled
}

const commonLength = (a: readonly number[], b: readonly number[]): number => {
  const n = a.findIndex((token, i) => token !== b[i])
  return n < 0 ? a.length : n
}

/** The matchers of a row, moved to the end to be the last that are taken for another row. */
const rowFor = async (compiled: readonly CompiledGrammar[], ids: readonly number[]): Promise<Row> => {
  const before = rows.findIndex(({ tokens }) => tokens.length <= ids.length && commonLength(tokens, ids) === tokens.length)
  if (before >= 0 || rows.length >= MAX_MATCHERS) {
    const [row] = rows.splice(Math.max(0, before), 1)
    rows.push(row!)
    return row!
  }
  const matchers: GrammarMatcher[] = []
  for (const one of compiled) matchers.push(await X.GrammarMatcher.createGrammarMatcher(one))
  const row = { matchers, tokens: [] }
  rows.push(row)
  return row
}

const reset = ({ matchers, tokens }: Row): void => {
  for (const matcher of matchers) matcher.reset()
  tokens.length = 0
}

/** Computes the mask after `ids`, the tokens of an answer. */
const mask = async (compiled: readonly CompiledGrammar[], ids: readonly number[]): Promise<number> => {
  const row = await rowFor(compiled, ids)
  const { matchers, tokens } = row
  if (commonLength(tokens, ids) < tokens.length) reset(row)
  for (const id of ids.slice(tokens.length)) {
    if (!matchers.every((matcher) => matcher.acceptToken(id))) {
      reset(row) // some matchers are a token ahead
      return MASK_STATE.rejected
    }
    tokens.push(id)
  }
  if (matchers.some((matcher) => matcher.isTerminated())) return MASK_STATE.rejected
  const masks: Int32Array[] = []
  for (const matcher of matchers) masks.push(await matcher.getNextTokenBitmask())
  const allowed = masks.reduce((a, b) => a.map((word, i) => word & b[i]!))
  words.set(allowed, 1)
  return allowed.some((word) => word !== 0) ? MASK_STATE.ready : MASK_STATE.stuck
}

try {
  const compiled = await compile()
  port.on('message', async (ids: readonly number[]) => {
    const maskOf = () => mask(compiled, ids).catch(() => MASK_STATE.rejected)
    let state = await maskOf()
    if (state === MASK_STATE.rejected) {
      // XGrammar was once seen to reject a token of its own mask: new matchers decide
      for (const { matchers } of rows.splice(0)) for (const matcher of matchers) matcher.dispose()
      state = await maskOf()
    }
    Atomics.store(words, 0, state)
    Atomics.notify(words, 0)
  })
  port.postMessage({ compiled: true } satisfies CompileReply)
} catch (error) {
  port.postMessage({ compiled: false, reason: reasonOf(error) } satisfies CompileReply)
}
