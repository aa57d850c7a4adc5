import { orThrow } from '../lib/error.js'
import { withoutUndefined } from '../lib/plain-object.js'
import type { PrepareOptions } from '../processors/processor.js'
import type { Messages } from '../processors/text/messages.js'
import type { InternVLCheckpoint } from './checkpoint/load.js'
import { type GenerationResult, generate, runToEnd } from './decoding/generate.js'
import type { GenerateOptions } from './decoding/generation-options.js'
import { streamText } from './decoding/text-stream.js'
import type { ResponseOptions } from './structured/response-format.js'
import { type ResponseConstraint, responseConstraint } from './structured/response-processor.js'

export type AnswerOptions = PrepareOptions & GenerateOptions & ResponseOptions

/** Sizes and durations of one `answer` call. */
export interface Timings {
  /** Tokens of the longest prompt. */
  readonly promptTokens: number
  /** New tokens of all answers. */
  readonly newTokens: number
  /** Tiles of all images. */
  readonly tiles: number
  /** From messages to input tensors. */
  readonly prepareSeconds: number
  /** From the input tensors to the first token. */
  readonly firstTokenSeconds: number
  /** From the first token to the last. */
  readonly decodeSeconds: number
}

export interface Answers {
  /** One text for each row; `numReturnSequences` rows for each conversation. */
  readonly texts: readonly string[]
  readonly result: GenerationResult
  readonly timings: Timings
}

const secondsBetween = (start: number, end: number): number => (end - start) / 1000

/**
 * Answers a batch of conversations: yields the new text of every row after each step, and returns all answers. Leaving early
 * (`break`, `return()`) disposes every tensor. Throws an `InternVLError` for messages or images that cannot be read,
 * and a `RangeError` for an option.
 */
export async function* streamAnswers(
  internvl: InternVLCheckpoint,
  batch: readonly Messages[],
  options: AnswerOptions = {}
): AsyncGenerator<readonly string[], Answers, void> {
  const { processor, model, generation } = internvl
  const start = performance.now()
  const inputs = await orThrow(processor.prepare(batch, options))
  const prepared = performance.now()
  const decode = (ids: readonly number[]) => processor.decode(ids, { skipSpecialTokens: true })
  const texts: string[] = [] // one for each row
  let stream: ReturnType<typeof streamText> | undefined
  let constraint: ResponseConstraint | undefined
  let firstToken: number | undefined
  try {
    constraint = await responseConstraint(internvl, options.responseFormat)
    const logitsProcessors = [...(options.logitsProcessors ?? []), ...constraint.processors]
    const settings = { ...generation, ...withoutUndefined(options), logitsProcessors }
    const steps = generate(model, inputs, { decode: processor.decode, tokenizer: processor.tokenizer, ...settings })
    stream = streamText(steps, decode, settings.stopStrings)
    while (true) {
      const { done, value } = await stream.next()
      const now = performance.now()
      firstToken ??= now
      if (done) {
        const timings = {
          promptTokens: value.routing ? Math.max(...value.routing.map((row) => row.promptTokens)) : inputs.inputIds.shape[1],
          newTokens: value.sequences.reduce((n, ids) => n + ids.length, 0),
          tiles: inputs.pixelValues?.shape[0] ?? 0,
          prepareSeconds: secondsBetween(start, prepared),
          firstTokenSeconds: secondsBetween(prepared, firstToken),
          decodeSeconds: secondsBetween(firstToken, now)
        }
        return { texts: value.sequences.map((_, row) => texts[row] ?? ''), result: value, timings }
      }
      for (const [row, text] of value.entries()) texts[row] = (texts[row] ?? '') + text
      yield value
    }
  } finally {
    await stream?.return(undefined as never)
    constraint?.release()
    inputs.dispose()
  }
}

/** Answers a batch of conversations. `const { texts } = await answer(internvl, [messages])` */
export const answer = (internvl: InternVLCheckpoint, batch: readonly Messages[], options: AnswerOptions = {}): Promise<Answers> =>
  runToEnd(streamAnswers(internvl, batch, options))
