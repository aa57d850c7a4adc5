import { text as readAll } from 'node:stream/consumers'
import { Command } from 'commander'
import { getOrThrow, InternVLError, orThrow } from '../../../lib/error.js'
import type { LabelledBox } from '../../../processors/image/draw.js'
import type { Messages } from '../../../processors/text/messages.js'
import type { Answers } from '../../answer.js'
import type { InternVLCheckpoint } from '../../checkpoint/load.js'
import { groundedText, parseGrounding, toPixels } from '../../grounding.js'
import { loadWithProgress, say, withModelOptions } from '../common.js'
import { type BestOfFlags, bestAnswers, checkBestOf, withBestOfOptions } from '../flags/best-of-flags.js'
import { filmOf, generationOptions, withGenerationOptions } from '../flags/generation-flags.js'

interface AskFlags extends BestOfFlags {
  readonly draw?: string
  readonly json?: true
}

/** The question: the argument, or standard input where none is given and no person sits there. */
const questionFrom = async (argument: string | undefined): Promise<string> => {
  const question = argument ?? (process.stdin.isTTY ? '' : await readAll(process.stdin))
  if (question.trim() === '')
    throw new InternVLError([
      { _tag: 'EmptyQuestion', message: 'the question is empty: give it as an argument or on standard input' }
    ])
  return question
}

const conversation = (question: string, { image = [], video = [], system }: AskFlags): Messages => [
  ...(system === undefined ? [] : [{ role: 'system', content: system } as const]),
  {
    role: 'user',
    content: [
      ...image.map((path) => ({ type: 'image', path }) as const),
      ...video.map((path) => ({ type: 'video', video: filmOf(path) }) as const),
      { type: 'text', text: question }
    ]
  }
]

/** Before a model is opened: whether there is something to draw on and a way to write it. */
const checkDrawing = async ({ draw, image = [] }: AskFlags, command: Command): Promise<void> => {
  if (draw === undefined) return
  if (image.length === 0) command.error('error: --draw needs an --image to draw on', { exitCode: 2 })
  const { formatOf } = await import('../../../processors/image/draw.js')
  getOrThrow(formatOf(draw))
}

/** Draws the boxes of an answer on its first picture; the boxes, in pixels. */
const drawAnswer = async (
  { tokenizer }: InternVLCheckpoint['processor'],
  { result }: Answers,
  { draw, image = [] }: AskFlags
): Promise<readonly LabelledBox[] | undefined> => {
  if (draw === undefined) return undefined
  const { drawOn } = await import('../../../processors/image/draw.js')
  const { groundings, problems } = parseGrounding(groundedText(tokenizer, result.sequences[0]!))
  let boxes: readonly LabelledBox[] = []
  const place = (size: { readonly width: number; readonly height: number }) => {
    boxes = toPixels(groundings, size)
    return boxes
  }
  await orThrow(drawOn(image[0]!, place, draw))
  for (const problem of problems) say(`not drawn: ${problem}`)
  say(`${draw}: ${image[0]} with ${boxes.length === 1 ? 'one box' : `${boxes.length} boxes`}`)
  return boxes
}

const report = (question: string, { texts, result, timings }: Answers, flags: AskFlags, model: string, engine: string) => ({
  question,
  images: flags.image ?? [],
  ...(flags.video ? { videos: flags.video } : {}),
  answer: texts[0],
  finishReason: result.finishReasons[0],
  model,
  engine,
  ...timings
})

/** The best of several answers, of which none can be shown before all are there. */
const askForBest = async (internvl: InternVLCheckpoint, question: string, flags: AskFlags): Promise<void> => {
  const answers = await bestAnswers(internvl, conversation(question, flags), flags)
  const [{ text }] = answers as readonly [(typeof answers)[number]]
  const shown = { question, images: flags.image ?? [], ...(flags.video ? { videos: flags.video } : {}) }
  const whole = { ...shown, answer: text, answers, model: internvl.dir, engine: internvl.engine.name }
  process.stdout.write(`${flags.json ? JSON.stringify(whole, null, 2) : text}\n`)
}

const ask = async (argument: string | undefined, flags: AskFlags, command: Command): Promise<void> => {
  checkBestOf(flags, command)
  await checkDrawing(flags, command)
  const question = await questionFrom(argument)
  const internvl = await loadWithProgress(flags)
  if (flags.bestOf !== undefined) return askForBest(internvl, question, flags).finally(internvl.dispose)
  const { streamAnswers } = await import('../../answer.js')
  const stream = streamAnswers(internvl, [conversation(question, flags)], generationOptions(flags))
  let next = await stream.next()
  for (; !next.done; next = await stream.next()) if (!flags.json) process.stdout.write(next.value[0]!)
  if (!flags.json) process.stdout.write('\n')
  const boxes = await drawAnswer(internvl.processor, next.value, flags)
  const whole = { ...report(question, next.value, flags, internvl.dir, internvl.engine.name), ...(boxes ? { boxes } : {}) }
  if (flags.json) process.stdout.write(`${JSON.stringify(whole, null, 2)}\n`)
  internvl.dispose()
}

/** `internvl ask`: one question, about pictures, films or nothing; the answer alone on standard output. */
export const askCommand = (): Command =>
  withBestOfOptions(withGenerationOptions(withModelOptions(new Command('ask'))))
    .description('answer a question, about pictures, films or nothing')
    .argument('[question]', 'what to ask; read from standard input when left out')
    .option('--draw <file>', 'the first picture with the boxes of the answer (<ref>, <box>) drawn on it')
    .option('--json', 'the answer with its timings as JSON')
    .addHelpText(
      'after',
      `
Examples:
  internvl ask --image photo.jpg "What is in this picture?"
  internvl ask --image sum.jpg --best-of 8 --temperature 0.7 --scorer path/to/VisualPRM "Think step by step."`
    )
    .action(ask)
