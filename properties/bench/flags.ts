import { Command, InvalidArgumentError, Option } from 'commander'
import { demoModel } from '../../generation/checkpoint/load.js'
import { repeated, wholeNumber } from '../../generation/cli/common.js'
import { type EngineName, engineNames } from '../../lib/engines/engine.js'
import { type PrecisionName, precisionNames } from './measure/precisions.js'

export interface Flags {
  readonly checkpoint: readonly string[]
  readonly precision: readonly PrecisionName[]
  readonly tiles?: readonly number[]
  readonly context?: readonly number[]
  readonly batch?: readonly number[]
  readonly newTokens: number
  readonly runs: number
  readonly rounds: number
  readonly load?: true
  readonly compare?: true
  readonly train?: true
  readonly steps?: number
  readonly llamacpp?: true
  readonly profile?: true
  readonly quality?: true
  readonly eval?: string
  readonly rows?: number
  readonly engine?: EngineName
  readonly json?: string
  /** A file, or `true` for the usual one. */
  readonly history?: string | true
}

/** Each value of `a,b,c`, no one twice, for commander. */
const list =
  <A>(parse: (item: string) => A) =>
  (text: string): readonly A[] => {
    const items = text.split(',').map((item) => parse(item.trim()))
    const twice = items.find((item, i) => items.indexOf(item) < i)
    if (twice !== undefined) throw new InvalidArgumentError(`${JSON.stringify(twice)} is there twice.`)
    return items
  }

const precision = (text: string): PrecisionName => {
  const found = precisionNames.find((name) => name === text)
  if (found) return found
  throw new InvalidArgumentError(
    `${JSON.stringify(text)} is unknown; it can be ${precisionNames.join(', ')}, several with commas between.`
  )
}

const numbers = list(wholeNumber)

const examples = `
Every figure is the best of its runs, with the median in brackets; each measurement has a process of its own, so that its peak memory is
its own. With --compare and --llamacpp the processes take turns, so that a machine whose speed drifts is fair to all.

Examples:
  npm run bench:checkpoint -- --like internvl3-1b --out /tmp/1b                 full size, random weights
  npm run bench -- --checkpoint /tmp/1b --precision float32,bfloat16,int8,4bit --tiles 1,7
  npm run bench -- --checkpoint /tmp/1b --precision bfloat16,int8 --compare --rounds 2   (npm run bench:setup first)
  npm run bench -- --checkpoint /tmp/1b --precision int8 --context 100,4000 --batch 1,4,8
  npm run bench -- --checkpoint /tmp/1b --precision int8,4bit --llamacpp       (npm run bench:setup -- --llamacpp first)
  npm run bench -- --checkpoint /tmp/1b --train --compare --rounds 2             steps, losses and memory beside PEFT's
  npm run bench -- --quality --eval questions.jsonl                              the demo model: what fewer bits cost`

/** What makes no sense together, in a sentence. */
const conflict = (flags: Flags): string | undefined => {
  const { load, compare, train, steps, llamacpp, profile, quality, tiles, context, batch, json, history, precision } = flags
  const sizes = tiles ?? context ?? batch
  if (load && (sizes || llamacpp)) return '--load times loading alone: leave --tiles, --context, --batch and --llamacpp away'
  if (train && (load || llamacpp || profile || quality || tiles || context))
    return '--train goes with --checkpoint, --compare, --batch, --steps and --rounds'
  if (train && precision.some((name) => name !== 'float32')) return '--train measures float32 alone'
  if (steps !== undefined && !train) return '--steps goes with --train'
  if (quality && (sizes || load || compare || llamacpp || profile))
    return '--quality goes with --checkpoint, --precision and --eval alone'
  if (profile && (context || batch || load || compare || llamacpp))
    return '--profile goes with --checkpoint, --precision and --tiles alone'
  if ((profile || quality) && history) return '--history keeps speeds: leave --profile and --quality away'
  if (profile && json) return '--profile prints a table alone: leave --json away'
  if ((flags.eval !== undefined || flags.rows !== undefined) && !quality) return '--eval and --rows go with --quality'
  return undefined
}

/** The command line; `run` gets flags that make sense together. */
export const benchCommand = (run: (flags: Flags) => Promise<void>): Command => {
  const command = new Command('bench')
    .description(
      'time loading, vision, the first token and decoding, and read the peak memory; compare, profile, measure quality'
    )
    .option('--checkpoint <dir>', 'a checkpoint folder, or several by repeating it; the demo model by default', repeated)
    .addOption(
      new Option('--precision <names>', `how weights lie in memory: ${precisionNames.join(', ')}, several with commas between`)
        .argParser(list(precision))
        .default(['float32'], 'float32')
    )
    .option('--tiles <ns>', 'tiles of the picture, such as 1,7; 1 where nothing else is asked', numbers)
    .option('--context <ns>', 'decoding after so many tokens of text, such as 100,4000', numbers)
    .option('--batch <ns>', 'decoding so many rows at once, such as 1,4,8', numbers)
    .option('--new-tokens <n>', 'tokens to decode after the first', wholeNumber, 32)
    .option('--runs <n>', 'runs in one process', wholeNumber, 3)
    .option('--rounds <n>', 'processes of each measurement, in turn', wholeNumber, 1)
    .option('--load', 'time loading alone, and its peak memory')
    .option('--compare', 'Transformers (and PEFT) on PyTorch too, in turn; what is packed is compared with its bfloat16')
    .option('--llamacpp', "llama.cpp's Q8_0 and Q4_0 beside int8 and 4bit: the decoder alone, 320 tokens of prompt")
    .option('--train', 'training steps instead: LoRA of rank 16 on the decoder, all else frozen, a tile and 80 words a row')
    .option('--steps <n>', 'of these, so many in one process, the first to warm up; 4 by default', wholeNumber)
    .option('--profile', 'time by kind of op instead')
    .option('--quality', 'what precision costs: logits against float32, perplexity, right answers')
    .option('--eval <file>', "questions and answers in InternVL's jsonl, for --quality")
    .option('--rows <n>', 'of these, the first so many', wholeNumber)
    .addOption(new Option('--engine <name>', 'where to compute; the best one at hand by default').choices(engineNames))
    .option('--json <file>', 'write the figures as JSON too; - is standard output, in place of the table')
    .option('--history [file]', 'append the figures to a file of JSON lines and draw it as PNG; .bench/history.jsonl by default')
    .addHelpText('after', examples)
    .showHelpAfterError('(add --help for all options)')
  return command.action(async (given: Omit<Flags, 'checkpoint'> & { readonly checkpoint?: readonly string[] }) => {
    const flags = { ...given, checkpoint: given.checkpoint ?? [demoModel] }
    const wrong = conflict(flags)
    if (wrong) command.error(`error: ${wrong}`, { exitCode: 2 })
    await run(flags)
  })
}
