import type { EngineInfo, RequestOptions } from '../../engine/engine-types.js'
import type { ResponseFormat } from '../../structured/response-format.js'
import { RequestError } from '../server-errors.js'
import type { ChatRequest } from './chat-request.js'
import { mediaFields, patchesFor } from './request-messages.js'
import { toolFormat, toolsOf } from './tools/tool-choice.js'
import { parsedSyntax } from './tools/tool-syntax.js'

/** Largest number of tokens of an answer that a request may ask for. */
const MAX_TOKENS = 1_000_000

const given = <A extends object>(record: A): Partial<A> =>
  Object.fromEntries(Object.entries(record).filter(([, value]) => value !== undefined && value !== null)) as Partial<A>

/**
 * Sampling of a request. Without any of the parameters the checkpoint's own settings hold. With temperature 0 or top_p 0 all of several
 * answers are the most probable one.
 */
const samplingOptions = ({ temperature, top_p, top_k, min_p, n }: ChatRequest, { defaults }: EngineInfo): RequestOptions => {
  const topK = top_k === undefined || top_k === null ? undefined : Math.max(0, top_k)
  const isMany = (n ?? 1) > 1
  if (temperature === 0 || top_p === 0) return isMany ? { doSample: true, temperature: 1, topK: 1 } : { doSample: false }
  const isAsked = [temperature, top_p, top_k, min_p].some((value) => value !== undefined && value !== null)
  if (!isAsked && !(isMany && defaults.doSample !== true)) return {}
  return { topK: defaults.topK ?? 0, ...given({ temperature, topP: top_p, topK, minP: min_p }), doSample: true } as RequestOptions
}

/** The forms of the answer that the fields of a request ask for. */
const askedFormats = (request: ChatRequest, info: EngineInfo): readonly (readonly [field: string, format: ResponseFormat])[] => {
  const { response_format: format, guided_json, guided_regex, guided_grammar, guided_choice } = request
  const formats: Readonly<Record<string, ResponseFormat | undefined>> = {
    tools: toolFormat(request, info),
    response_format:
      format?.type === 'json_object'
        ? 'json'
        : format?.type === 'json_schema'
          ? { schema: format.json_schema.schema }
          : undefined,
    guided_json: guided_json ? { schema: guided_json } : undefined,
    guided_regex: guided_regex ? { regex: guided_regex } : undefined,
    guided_grammar: guided_grammar ? { grammar: guided_grammar } : undefined,
    guided_choice: guided_choice ? { choice: guided_choice } : undefined
  }
  return Object.entries(formats).flatMap(([field, format]) => (format === undefined ? [] : [[field, format] as const]))
}

/** The field that asks for the form of the answer. */
export const formatField = (request: ChatRequest, info: EngineInfo): string =>
  askedFormats(request, info)[0]?.[0] ?? 'response_format'

/** The form of the answer; at most one field may ask for one. */
const answerFormat = (request: ChatRequest, info: EngineInfo): ResponseFormat | undefined => {
  const asked = askedFormats(request, info)
  if (asked.length > 1) {
    const names = asked.map(([name]) => name).join(' and ')
    throw new RequestError(400, `${names} exclude each other; leave one of them out`, asked[1]![0], 'conflict')
  }
  return asked[0]?.[1]
}

/** Whether the last message is the beginning of the answer. */
const continuesAnswer = ({ messages, add_generation_prompt: add, continue_final_message: continues }: ChatRequest): boolean => {
  const last = messages.at(-1)!
  return continues ?? (add !== true && last.role === 'assistant' && !last.tool_calls?.length)
}

/** Biases of single tokens. Throws a `RequestError` for a token that the vocabulary lacks. */
const tokenBiases = (biases: NonNullable<ChatRequest['logit_bias']>, { vocabSize }: EngineInfo) =>
  Object.entries(biases).map(([text, bias]) => {
    const id = Number(text)
    if (id >= vocabSize) {
      const field = `logit_bias.${text}`
      throw new RequestError(400, `${field}: the vocabulary has the tokens 0 to ${vocabSize - 1}`, field, 'unknown_token')
    }
    return [[id], bias] as const
  })

/**
 * Length of the answer, and the number of tokens before which it cannot end by itself. Throws a `RequestError` where the answer would
 * end too early: a shorter maximum, or a form that ends where its grammar ends.
 */
const lengthOptions = (request: ChatRequest, format: ResponseFormat | undefined): RequestOptions => {
  const maxNewTokens = request.max_completion_tokens ?? request.max_tokens ?? undefined
  const minNewTokens = request.ignore_eos ? (maxNewTokens ?? MAX_TOKENS) : (request.min_tokens ?? 0)
  const field = request.ignore_eos ? 'ignore_eos' : 'min_tokens'
  if (minNewTokens > (maxNewTokens ?? MAX_TOKENS))
    throw new RequestError(400, `min_tokens: ${minNewTokens} is more than max_tokens, ${maxNewTokens}`, 'min_tokens', 'conflict')
  if (minNewTokens > 0 && format !== undefined)
    throw new RequestError(400, `${field}: not with a form of the answer, which says where the answer ends`, field, 'conflict')
  return { ...given({ maxNewTokens }), ...(minNewTokens > 0 ? { minNewTokens } : {}) } as RequestOptions
}

/** Options of the engine for a request. Throws a `RequestError` that names a wrong field. */
export const toRequestOptions = (request: ChatRequest, info: EngineInfo): RequestOptions => {
  const { stop, logprobs, top_logprobs, logit_bias, num_beams, n } = request
  if (top_logprobs && !logprobs) throw new RequestError(400, 'top_logprobs: needs logprobs: true', 'top_logprobs', 'conflict')
  const tools = toolsOf(request, info)
  const continueFinalMessage = continuesAnswer(request)
  const responseFormat = answerFormat(request, info)
  return {
    ...samplingOptions(request, info),
    ...lengthOptions(request, responseFormat),
    ...given({
      seed: typeof request.seed === 'number' ? request.seed % 2 ** 53 : undefined, // 64 bits in JSON are no safe integer
      numReturnSequences: n,
      numBeams: num_beams,
      stopStrings: typeof stop === 'string' ? [stop] : stop,
      presencePenalty: request.presence_penalty,
      frequencyPenalty: request.frequency_penalty,
      repetitionPenalty: request.repetition_penalty,
      maxPatches: request.max_patches ?? patchesFor(mediaFields(request.messages)),
      numFrames: request.num_frames,
      fps: request.fps,
      templateVariables: request.chat_template_kwargs,
      responseFormat,
      tools: tools.length > 0 ? tools : undefined,
      skipSpecialTokens: parsedSyntax(info.chatTemplate, tools.length > 0) ? false : request.skip_special_tokens,
      sequenceBias: logit_bias ? tokenBiases(logit_bias, info) : undefined
    }),
    ...(logprobs ? { outputLogprobs: true, topLogprobs: top_logprobs ?? 0 } : {}),
    ...(continueFinalMessage ? { continueFinalMessage } : given({ addGenerationPrompt: request.add_generation_prompt }))
  } as RequestOptions
}
