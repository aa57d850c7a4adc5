import { text as readAll } from 'node:stream/consumers'
import { Command } from 'commander'
import { InternVLError } from '../../lib/fault.js'
import type { Messages } from '../../processors/messages.js'
import type { Answers } from '../answer.js'
import { answerOptions, loadWithProgress, type ModelFlags, repeated, withModelOptions } from './common.js'

interface AskFlags extends ModelFlags {
  readonly image?: readonly string[]
  readonly system?: string
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

const conversation = (question: string, { image = [], system }: AskFlags): Messages => [
  ...(system === undefined ? [] : [{ role: 'system', content: system } as const]),
  { role: 'user', content: [...image.map((path) => ({ type: 'image', path }) as const), { type: 'text', text: question }] }
]

const report = (question: string, { texts, result, timings }: Answers, flags: AskFlags, model: string, engine: string) => ({
  question,
  images: flags.image ?? [],
  answer: texts[0],
  finishReason: result.finishReasons[0],
  model,
  engine,
  ...timings
})

const ask = async (argument: string | undefined, flags: AskFlags): Promise<void> => {
  const question = await questionFrom(argument)
  const internvl = await loadWithProgress(flags)
  const { streamAnswers } = await import('../answer.js')
  const stream = streamAnswers(internvl, [conversation(question, flags)], answerOptions(flags))
  while (true) {
    const { done, value } = await stream.next()
    if (!done) {
      if (!flags.json) process.stdout.write(value[0]!)
      continue
    }
    const whole = JSON.stringify(report(question, value, flags, internvl.dir, internvl.engine.name), null, 2)
    process.stdout.write(flags.json ? `${whole}\n` : '\n')
    return internvl.dispose()
  }
}

/** `internvl ask`: one question, about pictures or none; the answer alone on standard output. */
export const askCommand = (): Command =>
  withModelOptions(new Command('ask'))
    .description('answer a question, about pictures or none')
    .argument('[question]', 'what to ask; read from standard input when left out')
    .option('-i, --image <path>', 'a picture: a file or an http(s) address; repeat for several', repeated)
    .option('--system <text>', 'a system message before the question')
    .option('--json', 'the answer with its timings as JSON')
    .addHelpText('after', '\nExample:\n  internvl ask --image photo.jpg "What is in this picture?"')
    .action(ask)
