import { type Command, InvalidArgumentError, Option } from 'commander'
import type { VideoSource } from '../../../processors/text/messages.js'
import type { AnswerOptions } from '../../answer.js'
import { answerOptions, type ModelFlags, repeated, wholeNumber } from '../common.js'

/** What commands take that answer about pictures and films, beyond `ModelFlags`. */
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
}

const numberWhere =
  (holds: (n: number) => boolean, says: string) =>
  (text: string): number => {
    const n = text.trim() === '' ? Number.NaN : Number(text)
    if (!holds(n)) throw new InvalidArgumentError(`It should be ${says}.`)
    return n
  }
const atLeastZero = numberWhere((n) => n >= 0 && Number.isFinite(n), 'a number, 0 or more')
const aboveZero = numberWhere((n) => n > 0 && Number.isFinite(n), 'a number above 0')
const share = numberWhere((n) => n > 0 && n <= 1, 'a number above 0 and at most 1')
const natural = numberWhere((n) => Number.isSafeInteger(n) && n >= 0, 'a whole number, 0 or more')

const stopText = (text: string, before?: readonly string[]): readonly string[] => {
  if (text === '') throw new InvalidArgumentError('A text to stop at cannot be empty.')
  return repeated(text, before)
}

/** Adds the options of `GenerationFlags`. */
export const withGenerationOptions = (command: Command): Command =>
  command
    .option('-i, --image <path>', 'a picture: a file or an http(s) address; repeat for several', repeated)
    .option(
      '--video <path>',
      'a film: its file or address, a folder of frames, or frames as a.png,b.png; repeat for several',
      repeated
    )
    .option('--system <text>', 'a system message before the conversation')
    .addOption(new Option('--num-frames <n>', 'frames to take of a film; all by default').argParser(wholeNumber).conflicts('fps'))
    .option('--fps <n>', 'frames a second to take of a film', aboveZero)
    .option('--num-beams <n>', 'beams to search with', wholeNumber)
    .option('--temperature <n>', 'draw tokens instead of taking the most probable; 0 does not', atLeastZero)
    .option('--top-p <n>', 'draw of the most probable tokens that have this probability together', share)
    .option('--top-k <n>', 'draw of so many most probable tokens; 0 is all', natural)
    .option('--seed <n>', 'draw the same tokens each time', natural)
    .option('--stop <text>', 'end the answer before this text; repeat for several', stopText)

/** Without what is undefined. */
const given = <A extends object>(options: A): A =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as A

/** Options for `answer` and `chat` from flags, those that were given. Whatever speaks of drawing tokens asks to draw them. */
export const generationOptions = (flags: GenerationFlags): AnswerOptions => {
  const { numFrames, fps, numBeams, temperature, topP, topK, seed, stop: stopStrings } = flags
  const draws = [temperature, topP, topK, seed].some((n) => n !== undefined)
  const options = { numFrames, fps, numBeams, temperature, topP, topK, seed, stopStrings, doSample: draws || undefined }
  return { ...answerOptions(flags), ...given(options) } as AnswerOptions
}

const isPicture = (path: string): boolean => /\.(jpe?g|png|webp|gif|tiff?)$/i.test(path)

/** A film from the command line: a list of pictures by their names is its frames. */
export const filmOf = (path: string): VideoSource => {
  const frames = path.split(',')
  return frames.length > 1 && frames.every(isPicture) ? frames : path
}
