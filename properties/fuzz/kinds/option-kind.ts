import fc from 'fast-check'
import { type AnswerOptions, streamAnswers } from '../../../generation/answer.js'
import { type ChatOptions, chat } from '../../../generation/chat/chat.js'
import { runToEnd } from '../../../generation/decoding/generate.js'
import { type EmbedOptions, embed, loadVisionEncoder } from '../../../generation/embed.js'
import { finiteNumbers, numbers, values } from '../awkward.js'
import { checkedAnswer, image, question } from '../calls.js'
import { refuseNaN } from '../verdict.js'
import { fuzzKind } from './fuzz-kind.js'

interface Input {
  readonly api: 'answer' | 'stream' | 'chat' | 'embed'
  readonly options: Readonly<Record<string, unknown>>
}

const ids = fc.array(fc.oneof(fc.nat(432), numbers), { maxLength: 4 })
const share = fc.oneof(fc.double({ min: 0, max: 1, noNaN: true }), numbers)
const small = fc.oneof({ weight: 3, arbitrary: fc.nat(8) }, { weight: 1, arbitrary: numbers })
const sides = fc.oneof(fc.constantFrom(28, 56, 14), numbers)

/** Plausible and odd values of every option that is plain data. */
const generateOptions: Readonly<Record<string, fc.Arbitrary<unknown>>> = {
  maxNewTokens: small, maxLength: finiteNumbers, minNewTokens: small, minLength: small, eosTokenIds: ids, padTokenId: small, doSample: fc.boolean(),
  temperature: fc.oneof(share, numbers), topK: small, topP: share, minP: share, typicalP: share, seed: fc.oneof(numbers, fc.array(numbers, { maxLength: 2 })),
  numBeams: small, lengthPenalty: numbers, earlyStopping: fc.constantFrom<unknown>(true, false, 'never', 'x'), numReturnSequences: small,
  repetitionPenalty: fc.oneof(share, numbers), noRepeatNgramSize: small, suppressTokens: ids, beginSuppressTokens: ids, badWords: fc.array(ids, { maxLength: 2 }),
  sequenceBias: fc.array(fc.tuple(ids, numbers), { maxLength: 2 }), forcedTokens: ids, forcedBosTokenId: small, forcedEosTokenIds: ids,
  removeInvalidValues: fc.boolean(), renormalizeLogits: fc.boolean(), stopStrings: fc.array(fc.constantFrom('a', '', '<|im_end|>', 'e'), { maxLength: 2 }),
  promptLookupNumTokens: small, maxMatchingNgramSize: small, visualDelta: fc.oneof(fc.constantFrom<unknown>('auto', 0.25, 1), numbers), ropeLength: small,
  maxPositionEmbeddings: finiteNumbers, imageTokenId: small
} // biome-ignore format: a table

const prepareOptions: Readonly<Record<string, fc.Arbitrary<unknown>>> = {
  size: fc.oneof(sides, fc.record({ width: sides, height: sides })), resample: small, mean: fc.oneof(numbers, fc.array(numbers, { maxLength: 3 })),
  std: fc.oneof(numbers, fc.array(numbers, { maxLength: 3 })), rescaleFactor: numbers, doResize: fc.boolean(), doRescale: fc.boolean(), doNormalize: fc.boolean(),
  cropToPatches: fc.boolean(), minPatches: small, maxPatches: small, useThumbnail: fc.boolean(), numFrames: small, fps: numbers, maxPixels: numbers,
  addGenerationPrompt: fc.boolean(), continueFinalMessage: fc.boolean(), paddingSide: fc.constantFrom<unknown>('left', 'right', 'top'),
  allowedSpecial: fc.constantFrom<unknown>('all', [], ['<ref>'], 'x'), limits: fc.record({ maxMessages: numbers, maxCharacters: numbers, maxTiles: numbers })
} // biome-ignore format: a table

const embedOptions: Readonly<Record<string, fc.Arbitrary<unknown>>> = {
  projected: fc.boolean(),
  hiddenStates: small,
  attentions: small,
  maxPatches: small
}

/** Up to `most` options; one value in eight is of any type. */
const some = (all: Readonly<Record<string, fc.Arbitrary<unknown>>>, most: number): fc.Arbitrary<Readonly<Record<string, unknown>>> =>
  fc
    .array(fc.oneof(...Object.entries(all).map(([name, value]) => fc.tuple(fc.constant(name), fc.oneof({ weight: 7, arbitrary: value }, { weight: 1, arbitrary: values })))), { minLength: 1, maxLength: most })
    .map((entries) => Object.fromEntries(entries)) // biome-ignore format: one line

/**
 * Options with 4 new tokens where they set no limit, and a signal: a generation that they allow to go on for long must stop within a step of
 * the abort.
 */
const bounded = (options: AnswerOptions): AnswerOptions => ({ maxNewTokens: 4, ...options, signal: AbortSignal.timeout(4000) })

/** Options of answers, streams left early, chats and embeddings: plausible values, numbers without bounds, other types. */
export const optionKind = fuzzKind<Input>({
  name: 'option',
  arbitrary: fc.oneof(
    { weight: 6, arbitrary: fc.record({ api: fc.constantFrom('answer' as const, 'stream' as const, 'chat' as const), options: some({ ...generateOptions, ...prepareOptions }, 4) }) },
    { weight: 1, arbitrary: fc.record({ api: fc.constant('embed' as const), options: some(embedOptions, 3) }) }
  ), // biome-ignore format: one line a form
  run: async ({ api, options }, { internvl, single }) => {
    if (api === 'answer') {
      await checkedAnswer(internvl, question, bounded(options as AnswerOptions))
    } else if (api === 'stream') {
      for await (const texts of streamAnswers(internvl, [question], bounded(options as AnswerOptions)))
        if (texts.join('').length > 2) break
    } else if (api === 'chat') {
      const session = chat(internvl, bounded(options as AnswerOptions) as ChatOptions)
      try {
        await runToEnd(session.send('What?', { images: [image] }))
        await session.ask('And now?')
      } finally {
        session.dispose()
      }
    } else {
      const vision = await loadVisionEncoder(single)
      try {
        const { values } = await embed(vision, [image], options as EmbedOptions)
        refuseNaN('embeddings', values.dataSync())
        values.dispose()
      } finally {
        vision.dispose()
      }
    }
    return true
  }
})
