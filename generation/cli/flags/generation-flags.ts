import { type Command, InvalidArgumentError, Option } from 'commander'
import { withoutUndefined } from '../../../lib/plain-object.js'
import { IMAGE_EXTENSIONS } from '../../../processors/image/codecs/image-format.js'
import type { VideoSource } from '../../../processors/text/messages.js'
import type { AnswerOptions } from '../../answer.js'
import { answerOptions, appendValue, info, type ModelFlags, positiveInteger } from '../common.js'

/** Options of commands that generate answers, in addition to `ModelFlags`. */
export interface GenerationFlags extends ModelFlags {
  readonly image?: readonly string[]
  readonly video?: readonly string[]
  readonly system?: string
  readonly numFrames?: number
  readonly fps?: number
  readonly numBeams?: number
  readonly temperature?: number
  readonly topP?: number
  readonly topK?: number
  readonly seed?: number
  readonly stop?: readonly string[]
  readonly promptLookupNumTokens?: number
  readonly maxMatchingNgramSize?: number
  readonly repetitionPenalty?: number
  readonly maxTime?: number
  readonly guidanceScale?: number
  readonly watermark?: 'lefthash' | 'selfhash'
  readonly cacheImplementation?: 'dynamic' | 'static' | 'quantized'
  readonly flash?: boolean
  readonly flashRelativeThreshold?: number
  readonly flashAbsoluteThreshold?: number
}

const numberWhere =
  (isValid: (n: number) => boolean, expected: string) =>
  (text: string): number => {
    const n = text.trim() === '' ? Number.NaN : Number(text)
    if (!isValid(n)) throw new InvalidArgumentError(`Expected ${expected}.`)
    return n
  }
const atLeastZero = numberWhere((n) => n >= 0 && Number.isFinite(n), 'a number of 0 or more')
const aboveZero = numberWhere((n) => n > 0 && Number.isFinite(n), 'a number above 0')
const probability = numberWhere((n) => n > 0 && n <= 1, 'a number above 0 and at most 1')
const share = numberWhere((n) => n >= 0 && n <= 1, 'a number from 0 to 1')
const natural = numberWhere((n) => Number.isSafeInteger(n) && n >= 0, 'a whole number of 0 or more')

const stopText = (text: string, before?: readonly string[]): readonly string[] => {
  if (text === '') throw new InvalidArgumentError('A stop string cannot be empty.')
  return appendValue(text, before)
}

/** Adds the options of `GenerationFlags` that concern decoding, for commands whose input is a file of questions. */
export const withDecodingOptions = (command: Command): Command =>
  command
    .addOption(
      new Option('--num-frames <n>', 'number of frames to sample from a video; all of a shorter video; default: all')
        .argParser(positiveInteger)
        .conflicts('fps')
    )
    .option('--fps <n>', 'frames per second to sample from a video', aboveZero)
    .option('--num-beams <n>', 'number of beams of beam search', positiveInteger)
    .option('--temperature <n>', 'sample with this temperature; 0 decodes greedily', atLeastZero)
    .option(
      '--top-p <n>',
      'nucleus sampling: sample from the most probable tokens whose probabilities sum to at least this',
      probability
    )
    .option('--top-k <n>', 'sample from the k most probable tokens; 0: all tokens', natural)
    .option('--seed <n>', 'random seed of sampling', natural)
    .option(
      '--prompt-lookup-num-tokens <n>',
      'prompt-lookup decoding: check at most n tokens copied from the prompt a step; the same answer, faster where the answer repeats the prompt',
      positiveInteger
    )
    .option('--max-matching-ngram-size <n>', 'longest n-gram that prompt lookup searches for; default: 2', positiveInteger)
    .option('--repetition-penalty <n>', 'above 1: tokens of prompt and answer become less probable', aboveZero)
    .option('--max-time <seconds>', 'end the answer after this time', aboveZero)
    .option('--guidance-scale <n>', 'above 1: the answer follows the prompt more, at twice the time a token; 1: off', atLeastZero)
    .addOption(new Option('--watermark <scheme>', 'mark the answer by green lists').choices(['lefthash', 'selfhash']))
    .addOption(
      new Option('--cache-implementation <name>', 'memory of the KV cache: grows, is reserved at once, or is quantized').choices([
        'dynamic',
        'static',
        'quantized'
      ])
    )
    .option('--flash', 'InternVL3.5-Flash: tiles without detail get a quarter of their tokens; default: as config.json says')
    .option('--no-flash', 'InternVL3.5-Flash: every tile keeps all its tokens')
    .option('--flash-relative-threshold <n>', 'quantile of the tile scores above which tiles are compressed; 0 to 1', share)
    .option('--flash-absolute-threshold <n>', 'least score of a compressed tile; 0 to 1', share)
    .option('--stop <text>', 'stop string: the answer ends before this text; may be repeated', stopText)

/** Adds the options of `GenerationFlags`. */
export const withGenerationOptions = (command: Command): Command =>
  withDecodingOptions(
    command
      .option('-i, --image <path>', 'image file, http(s) or data URL, or base64; may be repeated', appendValue)
      .option('--video <path>', 'video file or URL, folder of frames, or frames as a.png,b.png; may be repeated', appendValue)
      .option('--system <text>', 'system message')
  )

/** Says once for each length that a video has fewer frames than the user asked for, and that all of them are used. */
const fewerFramesNotice = (): AnswerOptions['onFewerFrames'] => {
  const printed = new Set<number>()
  return (requested, total) => {
    if (!printed.has(total)) info(`using all ${total} frames of a video, fewer than the ${requested} requested`)
    printed.add(total)
  }
}

/** The options of `answer` and `chat` that were given as flags. Any sampling option turns sampling on. */
export const generationOptions = (flags: GenerationFlags): AnswerOptions => {
  const { numFrames, fps, numBeams, temperature, topP, topK, seed, stop: stopStrings } = flags
  const { promptLookupNumTokens, maxMatchingNgramSize, flash, flashRelativeThreshold, flashAbsoluteThreshold } = flags
  const { repetitionPenalty, maxTime, guidanceScale, watermark, cacheImplementation } = flags
  const watermarkingConfig = watermark && { seedingScheme: watermark }
  const isSampling = [temperature, topP, topK, seed].some((n) => n !== undefined)
  const sampling = { temperature, topP, topK, seed, doSample: isSampling || undefined }
  const onFewerFrames = numFrames === undefined && fps === undefined ? undefined : fewerFramesNotice()
  const options = {
    onFewerFrames,
    numFrames,
    fps,
    numBeams,
    ...sampling,
    promptLookupNumTokens,
    maxMatchingNgramSize,
    repetitionPenalty,
    maxTime,
    guidanceScale,
    watermarkingConfig,
    cacheImplementation,
    kvCache: cacheImplementation && flags.kvCache, // `generate` refuses types that exclude each other
    flash,
    flashRelativeThreshold,
    flashAbsoluteThreshold,
    stopStrings
  }
  return { ...answerOptions(flags), ...withoutUndefined(options) } as AnswerOptions
}

const isImageFile = (path: string): boolean => IMAGE_EXTENSIONS.test(path)

/** A video argument: a comma-separated list of image files is a list of frames. */
export const videoSource = (path: string): VideoSource => {
  const frames = path.split(',')
  return frames.length > 1 && frames.every(isImageFile) ? frames : path
}
