import { errorText, valueText } from '../../lib/error.js'
import { isRecord } from '../../lib/plain-object.js'

/** A schema of zod, or of another library that implements Standard JSON Schema. Source: https://standardschema.dev/json-schema */
export interface StandardSchema {
  readonly '~standard': {
    readonly vendor: string
    readonly jsonSchema: { readonly input: (options: { readonly target: 'draft-2020-12' }) => Readonly<Record<string, unknown>> }
  }
}

/** A JSON schema as an object. */
export type JsonSchema = Readonly<Record<string, unknown>>

/** A part of an answer: the text `begin`, JSON of a schema, the text `end`. */
export interface TaggedJson {
  readonly begin: string
  readonly schema: JsonSchema
  readonly end: string
}

/** Calls of tools in an answer. */
export interface ToolCallFormat {
  /** Text that begins a call; all tags begin with the text. */
  readonly trigger: string
  readonly tags: readonly TaggedJson[]
  /** Special tokens that the tags consist of; others have no place in an answer. */
  readonly specialTokens?: readonly string[]
  /** The answer is a call; otherwise calls may follow any text. */
  readonly isRequired: boolean
  /** One call at most. */
  readonly isSingle: boolean
}

/**
 * Form that an answer must have. Tokens that would leave the form get no probability, and the end token none before the form is
 * complete: an answer that ends by itself always has the form. An answer that reaches `maxNewTokens` may be incomplete.
 */
export type ResponseFormat =
  /** Any JSON object. */
  | 'json'
  /** JSON of a schema: a JSON schema as an object, or a schema of zod. Properties that the schema does not name are not generated. */
  | { readonly schema: JsonSchema | StandardSchema }
  /** A text that matches a regular expression as a whole. */
  | { readonly regex: string }
  /** A text of a grammar in EBNF, in the notation of llama.cpp and XGrammar, with the rule `root`. */
  | { readonly grammar: string }
  /** One of these texts. */
  | { readonly choice: readonly string[] }
  | { readonly toolCalls: ToolCallFormat }

export interface ResponseOptions {
  /** Form that every answer must have: JSON, JSON of a schema, a regular expression, or a grammar. */
  readonly responseFormat?: ResponseFormat | undefined
}

/** A response format as plain data with one text for each kind. */
export interface GrammarText {
  readonly kind: 'schema' | 'grammar' | 'regex' | 'toolCalls'
  readonly text: string
  /** JSON of a schema: only the properties that the schema names. */
  readonly isStrict: boolean
  /** Special tokens that the form has. */
  readonly specialTokens?: readonly string[]
}

/** Longest text of a schema, a regular expression or a grammar, in characters. */
const MAX_LENGTH = 200_000

const refuse = (text: string): never => {
  throw new RangeError(`responseFormat: ${text}`)
}

const isStandard = (schema: object): schema is StandardSchema => '~standard' in schema

/** The JSON schema of a schema. Throws a `RangeError` for a schema that has none, such as a zod schema with a transform. */
const toJsonSchema = (schema: JsonSchema | StandardSchema): JsonSchema => {
  if (!isRecord(schema)) return refuse(`expected a schema as an object, got ${valueText(schema)}`)
  if (!isStandard(schema)) return schema
  const { vendor, jsonSchema } = schema['~standard']
  try {
    return jsonSchema.input({ target: 'draft-2020-12' })
  } catch (error) {
    return refuse(`the ${vendor} schema has no JSON schema: ${errorText(error)}`)
  }
}

/** The format as plain data: schemas of zod become JSON schemas. Throws a `RangeError` for a schema without a JSON schema. */
const plainResponseFormat = (format: ResponseFormat): ResponseFormat =>
  isRecord(format) && 'schema' in format ? { schema: toJsonSchema(format.schema) } : format

/** A request whose response format is plain data, for another process. */
export const withPlainFormat = <R extends { readonly options?: ResponseOptions | undefined }>(request: R): R => {
  const { options } = request
  if (options?.responseFormat === undefined) return request
  return { ...request, options: { ...options, responseFormat: plainResponseFormat(options.responseFormat) } }
}

/** Characters of a regular expression that are not themselves in a pattern. */
const escapeRegex = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')

const kindOf = (format: Exclude<ResponseFormat, 'json'>): string | undefined => {
  const kinds = ['schema', 'regex', 'grammar', 'choice', 'toolCalls'].filter((kind) => Object.hasOwn(format, kind))
  return kinds.length === 1 ? kinds[0] : undefined
}

const textOf = (value: unknown, name: string): string =>
  typeof value === 'string' && value !== '' ? value : refuse(`expected ${name} as a text, got ${valueText(value)}`)

const toGrammar = (format: ResponseFormat): GrammarText => {
  if (format === 'json') return { kind: 'schema', text: '{"type":"object"}', isStrict: false }
  const kind = isRecord(format) ? kindOf(format) : undefined
  if (kind === undefined)
    return refuse(`expected 'json', or one of { schema }, { regex }, { grammar } and { choice }, got ${valueText(format)}`)
  if ('schema' in format) return { kind: 'schema', text: JSON.stringify(toJsonSchema(format.schema)), isStrict: true }
  if ('grammar' in format) return { kind: 'grammar', text: textOf(format.grammar, 'a grammar'), isStrict: true }
  if ('toolCalls' in format)
    return {
      kind: 'toolCalls',
      text: JSON.stringify(format.toolCalls),
      isStrict: true,
      specialTokens: format.toolCalls.specialTokens ?? []
    }
  if ('choice' in format) {
    const { choice } = format
    if (!Array.isArray(choice) || choice.length === 0) return refuse(`expected a list of choices, got ${valueText(choice)}`)
    const pattern = choice.map((text) => escapeRegex(textOf(text, 'each choice'))).join('|')
    return { kind: 'regex', text: `(${pattern})`, isStrict: true }
  }
  return { kind: 'regex', text: textOf(format.regex, 'a regular expression'), isStrict: true }
}

/** The text of a format for the grammar compiler. Throws a `RangeError` that says how a format is wrong. */
export const grammarText = (format: ResponseFormat): GrammarText => {
  const grammar = toGrammar(format)
  return grammar.text.length <= MAX_LENGTH
    ? grammar
    : refuse(`a text of ${grammar.text.length} characters, more than the limit of ${MAX_LENGTH}`)
}
