import { orThrow } from '../lib/error.js'
import { tf } from '../lib/tf.js'
import type { PrepareOptions } from '../processors/processor.js'
import type { Messages } from '../processors/text/messages.js'
import type { InternVLCheckpoint } from './checkpoint/load.js'
import { type GenerationResult, generate } from './decoding/generate.js'
import type { GenerateOptions } from './decoding/generation-options.js'
import { streamText } from './decoding/text-stream.js'

export type AnswerOptions = PrepareOptions & GenerateOptions

/** What answering took: tokens of the longest prompt, of all answers, tiles of all pictures, and seconds. */
export interface Timings {
  readonly promptTokens: number
  readonly newTokens: number
  readonly tiles: number
  readonly prepareSeconds: number
  /** From ready inputs to the first token. */
  readonly firstTokenSeconds: number
  /** From the first token to the last. */
  readonly decodeSeconds: number
}

export interface Answers {
  /** One a row; `numReturnSequences` of them for each conversation. */
  readonly texts: readonly string[]
  readonly result: GenerationResult
  readonly timings: Timings
}

const seconds = (from: number, to: number): number => (to - from) / 1000

/**
 * Answers conversations, one a row: yields for every row the text that came with each step, and returns the whole.
 * Throws an `InternVLError` for what is wrong with the messages or their pictures.
 */
export async function* streamAnswers(
  { processor, model, generation }: InternVLCheckpoint,
  batch: readonly Messages[],
  options: AnswerOptions = {}
): AsyncGenerator<readonly string[], Answers, void> {
  const begun = performance.now()
  const inputs = await orThrow(processor.prepare(batch, options))
  const decode = (ids: readonly number[]) => processor.decode(ids, { skipSpecialTokens: true })
  const ready = performance.now()
  let [first, last] = [ready, ready]
  const texts: string[] = [] // of rows; there may be several to a conversation
  try {
    const steps = generate(model, inputs, { decode, ...generation, ...options })
    const timed = (async function* () {
      while (true) {
        const step = await steps.next()
        last = performance.now()
        if (first === ready) first = last
        if (step.done) return step.value
        yield step.value
      }
    })()
    const stream = streamText(timed, decode, options.stopStrings)
    while (true) {
      const { done, value } = await stream.next()
      if (done) {
        const timings = {
          promptTokens: inputs.inputIds.shape[1],
          newTokens: value.sequences.reduce((n, ids) => n + ids.length, 0),
          tiles: inputs.pixelValues?.shape[0] ?? 0,
          prepareSeconds: seconds(begun, ready),
          firstTokenSeconds: seconds(ready, first),
          decodeSeconds: seconds(first, last)
        }
        return { texts: value.sequences.map((_, row) => texts[row] ?? ''), result: value, timings }
      }
      for (const [row, text] of value.entries()) texts[row] = (texts[row] ?? '') + text
      yield value
    }
  } finally {
    tf.dispose([inputs.inputIds, inputs.attentionMask, ...(inputs.pixelValues ? [inputs.pixelValues] : [])])
  }
}

/** The answers to conversations, whole. `const { texts } = await answer(internvl, [messages])` */
export const answer = async (
  internvl: InternVLCheckpoint,
  batch: readonly Messages[],
  options: AnswerOptions = {}
): Promise<Answers> => {
  const stream = streamAnswers(internvl, batch, options)
  while (true) {
    const { done, value } = await stream.next()
    if (done) return value
  }
}
