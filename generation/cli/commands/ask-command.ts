import { existsSync } from 'node:fs'
import { dirname } from 'node:path'
import { text as readAll } from 'node:stream/consumers'
import { Command } from 'commander'
import { getOrThrow, InternVLError, issue, orThrow } from '../../../lib/error.js'
import type { LabelledBox } from '../../../processors/image/draw.js'
import type { Messages } from '../../../processors/text/messages.js'
import type { Answers } from '../../answer.js'
import type { InternVLCheckpoint } from '../../checkpoint/load.js'
import { groundedText, parseGrounding, toPixels } from '../../grounding.js'
import { info, loadWithProgress, withModelOptions } from '../common.js'
import { type BestOfFlags, bestAnswers, checkBestOf, withBestOfOptions } from '../flags/best-of-flags.js'
import { generationOptions, videoSource, withGenerationOptions } from '../flags/generation-flags.js'

interface AskFlags extends BestOfFlags {
  readonly draw?: string
  readonly assistantModel?: string
  readonly json?: true
}

/** The question: the argument, or standard input unless standard input is a terminal. */
const questionFrom = async (argument: string | undefined): Promise<string> => {
  const question = argument ?? (process.stdin.isTTY ? '' : await readAll(process.stdin))
  if (question.trim() === '')
    throw new InternVLError([
      { _tag: 'EmptyQuestion', message: 'the question is empty; give the question as an argument or on standard input' }
    ])
  return question
}

const conversation = (question: string, { image = [], video = [], system }: AskFlags): Messages => [
  ...(system === undefined ? [] : [{ role: 'system', content: system } as const]),
  {
    role: 'user',
    content: [
      ...image.map((path) => ({ type: 'image', path }) as const),
      ...video.map((path) => ({ type: 'video', video: videoSource(path) }) as const),
      { type: 'text', text: question }
    ]
  }
]

/** Checks before the model is loaded that there is an image to draw on, that its format can be written, and that the folder exists. */
const checkDrawing = async ({ draw, image = [] }: AskFlags, command: Command): Promise<void> => {
  if (draw === undefined) return
  if (image.length === 0) command.error('error: --draw needs an --image to draw on', { exitCode: 2 })
  const { imageFormatOf } = await import('../../../processors/image/draw.js')
  getOrThrow(imageFormatOf(draw))
  if (!existsSync(dirname(draw)))
    throw new InternVLError([issue('NotFound', `--draw ${draw}: there is no folder ${dirname(draw)}`, { path: draw })])
}

/** Draws the boxes of an answer on the first image, and returns the boxes in pixels. */
const drawAnswer = async (
  { tokenizer }: InternVLCheckpoint['processor'],
  { result }: Answers,
  { draw, image = [] }: AskFlags
): Promise<readonly LabelledBox[] | undefined> => {
  if (draw === undefined) return undefined
  const { drawOn } = await import('../../../processors/image/draw.js')
  const { groundings, problems } = parseGrounding(groundedText(tokenizer, result.sequences[0]!))
  let boxes: readonly LabelledBox[] = []
  const boxesFor = (size: { readonly width: number; readonly height: number }) => {
    boxes = toPixels(groundings, size)
    return boxes
  }
  await orThrow(drawOn(image[0]!, boxesFor, draw))
  for (const problem of problems) info(`box skipped: ${problem}`)
  info(`${draw}: ${image[0]} with ${boxes.length === 1 ? '1 box' : `${boxes.length} boxes`}`)
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

/** Prints the best of several answers, after all of them were generated. */
const askForBest = async (internvl: InternVLCheckpoint, question: string, flags: AskFlags): Promise<void> => {
  const answers = await bestAnswers(internvl, conversation(question, flags), flags)
  const [{ text }] = answers as readonly [(typeof answers)[number]]
  const request = { question, images: flags.image ?? [], ...(flags.video ? { videos: flags.video } : {}) }
  const whole = { ...request, answer: text, answers, model: internvl.dir, engine: internvl.engine.name }
  process.stdout.write(`${flags.json ? JSON.stringify(whole, null, 2) : text}\n`)
}

const ask = async (argument: string | undefined, flags: AskFlags, command: Command): Promise<void> => {
  checkBestOf(flags, command)
  await checkDrawing(flags, command)
  const question = await questionFrom(argument)
  const internvl = await loadWithProgress(flags)
  if (flags.bestOf !== undefined) return askForBest(internvl, question, flags).finally(internvl.dispose)
  const { streamAnswers } = await import('../../answer.js')
  const { adapter: _, assistantModel: assistant, ...baseFlags } = flags
  const assistantModel = assistant === undefined ? undefined : await loadWithProgress({ ...baseFlags, model: assistant })
  const options = { ...generationOptions(flags), ...(assistantModel ? { assistantModel } : {}) }
  const stream = streamAnswers(internvl, [conversation(question, flags)], options)
  let next = await stream.next()
  for (; !next.done; next = await stream.next()) if (!flags.json) process.stdout.write(next.value[0]!)
  if (!flags.json) process.stdout.write('\n')
  const boxes = await drawAnswer(internvl.processor, next.value, flags)
  const whole = { ...report(question, next.value, flags, internvl.dir, internvl.engine.name), ...(boxes ? { boxes } : {}) }
  if (flags.json) process.stdout.write(`${JSON.stringify(whole, null, 2)}\n`)
  assistantModel?.dispose()
  internvl.dispose()
}

/** `internvl ask`: answers one question about images, videos or text. Standard output holds the answer alone. */
export const askCommand = (): Command =>
  withBestOfOptions(withGenerationOptions(withModelOptions(new Command('ask'))))
    .description('answer a question about images, videos or text')
    .argument('[question]', 'the question; read from standard input if omitted')
    .option('--draw <file>', 'write the first image annotated with the boxes of the answer (<ref>, <box>)')
    .option(
      '--assistant-model <model>',
      'a smaller model of the same vocabulary that proposes tokens for the model to check; the same answer'
    )
    .option('--json', 'print the answer and its timings as JSON')
    .addHelpText(
      'after',
      `
Examples:
  internvl ask --image photo.jpg "What is in this image?"
  internvl ask --image sum.jpg --best-of 8 --temperature 0.7 --scorer path/to/VisualPRM "Think step by step."`
    )
    .action(ask)
