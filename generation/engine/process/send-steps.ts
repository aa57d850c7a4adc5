import type { Processor } from '../../../processors/processor.js'
import type { Decode } from '../../decoding/generation-options.js'
import type { GenerationResult, GenerationStream, Step, TopLogprob } from '../../decoding/prepare-generation.js'
import { type TextStream, textStream } from '../../decoding/text-stream.js'
import type { RequestOptions, TokenLogprob } from '../engine-types.js'
import type { ProcessEvent, RequestContext } from './request-context.js'

/** Decodes the tokens of answers without end tokens, and without other special tokens unless `skipSpecialTokens` is false. */
export const answerDecoder = (
  processor: Processor,
  { skipSpecialTokens = true, eosTokenIds = [] }: Pick<RequestOptions, 'skipSpecialTokens' | 'eosTokenIds'>
): Decode => {
  const ends = new Set(eosTokenIds)
  return (ids) => processor.decode(skipSpecialTokens ? ids : ids.filter((id) => !ends.has(id)), { skipSpecialTokens })
}

/** Decoding of the text of answers, and the texts that end them. */
export interface AnswerText {
  readonly decode: Decode
  readonly stopStrings: readonly string[]
}

/** Sends the tokens of the steps as events, and the ends of the answers after the last. */
export const sendSteps = async (
  { internvl: { processor } }: Pick<RequestContext, 'internvl'>,
  steps: GenerationStream,
  { decode, stopStrings }: AnswerText,
  emit: (event: ProcessEvent) => void,
  onFirstToken: () => void
): Promise<GenerationResult> => {
  const named = ({ token, logprob }: TopLogprob): TokenLogprob => ({ token, logprob, text: processor.decode([token]) })
  const texts = new Map<number, TextStream>()
  const sendStep = ({ tokens, logprobs, topLogprobs }: Step): void => {
    for (const [choice, token] of tokens.entries()) {
      if (token === undefined) continue
      const text = texts.get(choice) ?? textStream(decode, stopStrings)
      texts.set(choice, text)
      const [logprob, top] = [logprobs?.[choice], topLogprobs?.[choice]]
      emit({
        type: 'token',
        choice,
        token,
        text: text.push(token),
        ...(logprob === undefined ? {} : { logprob: named({ token, logprob }) }),
        ...(top ? { topLogprobs: top.map(named) } : {})
      })
    }
  }
  try {
    while (true) {
      const { done, value } = await steps.next()
      onFirstToken()
      if (!done) {
        sendStep(value)
        continue
      }
      for (const [choice, finishReason] of value.finishReasons.entries()) {
        const score = value.scores?.[choice]
        const text = texts.get(choice)?.end() ?? ''
        emit({ type: 'choice', choice, text, finishReason, ...(score === undefined ? {} : { score }) })
      }
      return value
    }
  } finally {
    await steps.return(undefined as never)
  }
}
