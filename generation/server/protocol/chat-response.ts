import type { FinishReason } from '../../decoding/stopping.js'
import type { Choice, EngineResult, TokenLogprob, Usage } from '../../engine/engine-types.js'
import { parseRest, type ToolCallParser } from './tools/tool-call-parser.js'

/** Values that all parts of an answer have. */
export interface AnswerHead {
  readonly id: string
  readonly created: number
  readonly model: string
}

/** OpenAI's name of a finish reason. An answer that the server ends, for its time limit, is one of limited length. */
export const finishReasonOf = (reason: FinishReason, hasCalls: boolean): 'stop' | 'length' | 'tool_calls' => {
  if (reason === 'length' || reason === 'aborted') return 'length'
  return hasCalls ? 'tool_calls' : 'stop'
}

const toLogprob = ({ text, logprob }: TokenLogprob) => ({
  token: text,
  logprob: Math.max(logprob, -9999), // JSON has no infinity
  bytes: [...Buffer.from(text)]
})

/** Log-probabilities of tokens in OpenAI's shape. */
export const logprobsContent = (logprobs: readonly TokenLogprob[], topLogprobs: readonly (readonly TokenLogprob[])[] = []) =>
  logprobs.map((token, i) => ({ ...toLogprob(token), top_logprobs: (topLogprobs[i] ?? []).map(toLogprob) }))

/** Token counts in OpenAI's shape; image tokens, which include those of videos, are counted apart. */
export const toUsage = ({ prompt, newTokens }: Usage) => ({
  prompt_tokens: prompt.total,
  completion_tokens: newTokens,
  total_tokens: prompt.total + newTokens,
  prompt_tokens_details: {
    cached_tokens: prompt.reused,
    image_tokens: prompt.image,
    text_tokens: prompt.text,
    tiles: prompt.tiles
  }
})

const toChoice = (choice: Choice, index: number, parser: ToolCallParser) => {
  const { text, calls, reasoning } = parseRest(parser, choice.text)
  const message = {
    role: 'assistant' as const,
    content: calls.length > 0 && text === '' ? null : text,
    refusal: null,
    ...(reasoning === undefined ? {} : { reasoning_content: reasoning }),
    ...(calls.length > 0 ? { tool_calls: calls } : {})
  }
  const logprobs = choice.logprobs ? { content: logprobsContent(choice.logprobs, choice.topLogprobs), refusal: null } : null
  return { index, message, logprobs, finish_reason: finishReasonOf(choice.finishReason, calls.length > 0) }
}

/** A whole answer: the body of `POST /v1/chat/completions` without stream. */
export const toCompletion = (head: AnswerHead, { choices, usage }: EngineResult, makeParser: () => ToolCallParser) => ({
  id: head.id,
  object: 'chat.completion' as const,
  created: head.created,
  model: head.model,
  choices: choices.map((choice, index) => toChoice(choice, index, makeParser())),
  usage: toUsage(usage)
})
