import { InputError, InternVLError } from '../../lib/error.js'
import { EngineClosedError, EngineError, QueueFullError } from '../engine/engine-errors.js'

/** Types of errors of OpenAI's API. */
export type ErrorType = 'invalid_request_error' | 'authentication_error' | 'not_found_error' | 'rate_limit_error' | 'server_error'

/** The body of an error in OpenAI's shape. */
export interface ErrorBody {
  readonly error: {
    readonly message: string
    readonly type: ErrorType
    /** The wrong field of the request, such as `messages[0].content[1].image_url.url`. */
    readonly param: string | null
    readonly code: string | null
  }
}

/** An error that the server answers with a status. */
export class RequestError extends Error {
  override readonly name = 'RequestError'
  constructor(
    readonly status: number,
    message: string,
    readonly param: string | null = null,
    readonly code: string | null = null,
    readonly headers: Readonly<Record<string, string>> = {}
  ) {
    super(message)
  }

  get body(): ErrorBody {
    return { error: { message: this.message, type: typeOf(this.status), param: this.param, code: this.code } }
  }
}

const typeOf = (status: number): ErrorType => {
  if (status === 401 || status === 403) return 'authentication_error'
  if (status === 404) return 'not_found_error'
  if (status === 429) return 'rate_limit_error'
  return status >= 500 ? 'server_error' : 'invalid_request_error'
}

type OptionFields = Readonly<Record<string, string>>

/** The request's field of an option of the library. */
const fieldOfOption: OptionFields = {
  maxNewTokens: 'max_completion_tokens',
  maxLength: 'max_completion_tokens',
  topP: 'top_p',
  topK: 'top_k',
  minP: 'min_p',
  numReturnSequences: 'n',
  numBeams: 'num_beams',
  stopStrings: 'stop',
  topLogprobs: 'top_logprobs',
  sequenceBias: 'logit_bias',
  presencePenalty: 'presence_penalty',
  frequencyPenalty: 'frequency_penalty',
  repetitionPenalty: 'repetition_penalty',
  responseFormat: 'response_format',
  maxPatches: 'max_patches',
  numFrames: 'num_frames',
  promptIds: 'messages',
  inputIds: 'messages',
  inputs: 'messages'
}

/** The field that a message of the library begins with: `topP: expected …`, `messages[0].content[1]: …`. */
const paramOf = (message: string, fields: OptionFields): string | null => {
  const [, name] = /^([\w.[\]]+): /.exec(message) ?? []
  if (name === undefined) return null
  return name.startsWith('messages') ? name : (fields[name] ?? name)
}

/** A message of the library with the names that the request and the command line use. */
const forClients = (message: string, fields: OptionFields): string => {
  const [prefix, name = ''] = /^(\w+): /.exec(message) ?? []
  const text = prefix && fields[name] ? `${fields[name]}: ${message.slice(prefix.length)}` : message
  return text
    .replace('(mediaPolicy.domains)', '(--allow-media-domain)')
    .replace(/(?<=\bwith )num(Beams|ReturnSequences)\b/g, (option) => fields[option] ?? option)
}

const retryAfter = (seconds: number) => ({ 'retry-after': String(seconds) })

/** Names in the errors of a request. */
export interface ErrorFields {
  /** The field of the image or video that an issue is about. */
  readonly mediaParam?: (issue: unknown) => string | null
  /** Fields of options that have several, such as `{ responseFormat: 'guided_regex' }`. */
  readonly optionFields?: OptionFields
}

/** The answer to an error of the engine or the library; unknown errors tell nothing about the server. */
export const toRequestError = (
  error: unknown,
  { mediaParam = () => null, optionFields = {} }: ErrorFields = {}
): RequestError => {
  const fields = { ...fieldOfOption, ...optionFields }
  if (error instanceof RequestError) return error
  if (error instanceof QueueFullError)
    return new RequestError(429, error.message, null, 'queue_full', retryAfter(error.retryAfterSeconds))
  if (error instanceof EngineClosedError) return new RequestError(503, 'The server is stopping.', null, 'stopping', retryAfter(5))
  if (error instanceof EngineError)
    return new RequestError(503, error.message, null, 'engine_crashed', error.retryable ? retryAfter(1) : {})
  if (error instanceof InputError) {
    const param = paramOf(error.issues[0].message, fields) ?? mediaParam(error.issues[0]) ?? 'messages'
    const code = error.issues[0]._tag === 'PromptTooLong' ? 'context_length_exceeded' : 'invalid_input'
    return new RequestError(400, forClients(error.message, fields), param, code)
  }
  if (error instanceof RangeError)
    return new RequestError(400, forClients(error.message, fields), paramOf(error.message, fields), 'invalid_value')
  if (error instanceof InternVLError) return new RequestError(500, error.message, null, 'model_error')
  return new RequestError(500, 'The server failed to answer; its log has the reason.', null, 'internal_error')
}

/** A part of an issue of zod. */
interface SchemaIssue {
  readonly code?: string | undefined
  readonly path: readonly PropertyKey[]
  readonly message: string
  readonly errors?: readonly (readonly SchemaIssue[])[]
}

/** The issue that tells most: of a union, that of the alternative whose input was followed furthest. */
const deepest = (issue: SchemaIssue, base: readonly PropertyKey[] = []): SchemaIssue => {
  const path = [...base, ...issue.path]
  const inner = (issue.errors ?? []).flatMap(([first]) => (first ? [deepest(first, path)] : []))
  const [best] = inner.sort((a, b) => b.path.length - a.path.length)
  return best && best.path.length > path.length ? best : { ...issue, path }
}

/** A path as in JavaScript: `messages[0].content`. */
const pathText = (path: readonly PropertyKey[]): string =>
  path.reduce<string>(
    (text, key) => (typeof key === 'number' ? `${text}[${key}]` : text === '' ? String(key) : `${text}.${String(key)}`),
    ''
  )

/** The answer to a request that does not fit its schema. */
export const schemaError = (issues: readonly SchemaIssue[]): RequestError => {
  const { path, message, code } = deepest(issues[0]!)
  const param = pathText(path)
  return new RequestError(
    400,
    `${param === '' ? 'body' : param}: ${message}`,
    param === '' ? null : param,
    code ?? 'invalid_type'
  )
}
