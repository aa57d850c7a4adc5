import { Command, InvalidArgumentError, Option } from 'commander'
import { demoModel } from '../../generation/checkpoint/load.js'
import { appendValue, positiveInteger } from '../../generation/cli/common.js'
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
  readonly allWeights?: true
  readonly steps?: number
  readonly llamacpp?: true
  readonly openvino?: true
  readonly roofline?: true
  readonly profile?: true
  readonly quality?: true
  readonly eval?: string
  readonly rows?: number
  readonly engine?: EngineName
  readonly json?: string
  /** A file, or `true` for the default file. */
  readonly history?: string | true
}

/** The values of a comma-separated list without duplicates, for commander. */
const list =
  <A>(parse: (item: string) => A) =>
  (text: string): readonly A[] => {
    const items = text.split(',').map((item) => parse(item.trim()))
    const duplicate = items.find((item, i) => items.indexOf(item) < i)
    if (duplicate !== undefined) throw new InvalidArgumentError(`${JSON.stringify(duplicate)} is listed twice.`)
    return items
  }

const precision = (text: string): PrecisionName => {
  const found = precisionNames.find((name) => name === (text === '4bit' ? 'int4' : text)) // 4bit: alias of older versions
  if (found) return found
  throw new InvalidArgumentError(
    `${JSON.stringify(text)} is unknown; use one or several of ${precisionNames.join(', ')}, separated by commas.`
  )
}

const numbers = list(positiveInteger)

const examples = `
Every figure is the best of its runs, with the median in brackets. Every measurement has its own process, so that peak memory is
measured separately. With --compare, --llamacpp and --openvino the processes take turns, so that a drift of the machine's speed affects all alike.

Examples:
  npm run bench:checkpoint -- --like internvl3-1b --out /tmp/1b                 full size, random weights
  npm run bench -- --checkpoint /tmp/1b --precision float32,bfloat16,int8,int4 --tiles 1,7
  npm run bench -- --checkpoint /tmp/1b --precision bfloat16,int8 --compare --rounds 2   (npm run bench:setup first)
  npm run bench -- --checkpoint /tmp/1b --precision int8 --context 100,4000 --batch 1,4,8
  npm run bench -- --checkpoint /tmp/1b --precision int8,int4 --llamacpp       (npm run bench:setup -- --llamacpp first)
  npm run bench -- --checkpoint /tmp/1b --precision float32,int8,int4 --openvino --roofline   (npm run bench:setup -- --openvino first)
  npm run bench -- --checkpoint /tmp/1b-int4 --precision int4                   a folder that \`internvl convert\` has quantized, as stored
  npm run bench -- --checkpoint /tmp/1b --train --compare --rounds 2             steps, losses and memory, compared with PEFT
  npm run bench -- --train --all-weights --batch 24 --steps 40 --compare         the same of all weights, the demo model
  npm run bench -- --quality --eval questions.jsonl                              the demo model: quality by precision`

/** The first conflict between flags, as a sentence. */
const conflict = (flags: Flags): string | undefined => {
  const {
    load,
    compare,
    train,
    allWeights,
    steps,
    llamacpp,
    openvino,
    roofline,
    profile,
    quality,
    tiles,
    context,
    batch,
    json,
    history,
    precision
  } = flags
  const sizes = tiles ?? context ?? batch
  if (load && (sizes || llamacpp || openvino || roofline))
    return '--load times loading only: remove --tiles, --context, --batch, --llamacpp, --openvino and --roofline'
  if (train && (load || llamacpp || openvino || roofline || profile || quality || tiles || context))
    return '--train can be combined with --checkpoint, --all-weights, --compare, --batch, --steps and --rounds only'
  if (train && precision.some((name) => name !== 'float32')) return '--train measures float32 only'
  if (allWeights && !train) return '--all-weights needs --train'
  if (steps !== undefined && !train) return '--steps needs --train'
  if (quality && (sizes || load || compare || llamacpp || openvino || roofline || profile))
    return '--quality can be combined with --checkpoint, --precision and --eval only'
  if (profile && (context || batch || load || compare || llamacpp || openvino || roofline))
    return '--profile can be combined with --checkpoint, --precision and --tiles only'
  if ((profile || quality) && history) return '--history stores speeds: remove --profile and --quality'
  if (profile && json) return '--profile prints a table only: remove --json'
  if ((flags.eval !== undefined || flags.rows !== undefined) && !quality) return '--eval and --rows need --quality'
  return undefined
}

/** The command line; `run` receives flags without conflicts. */
export const benchCommand = (run: (flags: Flags) => Promise<void>): Command => {
  const command = new Command('bench')
    .description(
      'measure the time of loading, vision, the first token and decoding, and peak memory; compare, profile, measure quality'
    )
    .option('--checkpoint <dir>', 'a checkpoint folder; repeat the option for several; the demo model by default', appendValue)
    .addOption(
      new Option(
        '--precision <names>',
        `precision of the weights: one or several of ${precisionNames.join(', ')}, separated by commas`
      )
        .argParser(list(precision))
        .default(['float32'], 'float32')
    )
    .option('--tiles <ns>', 'numbers of image tiles, such as 1,7; 1 by default', numbers)
    .option(
      '--context <ns>',
      'decode after prompts of these numbers of text tokens, such as 100,4000; the shortest and the longest also in turn in one process',
      numbers
    )
    .option('--batch <ns>', 'decode batches of these sizes, such as 1,4,8', numbers)
    .option('--new-tokens <n>', 'tokens to decode after the first', positiveInteger, 32)
    .option('--runs <n>', 'runs in one process', positiveInteger, 3)
    .option('--rounds <n>', 'processes of every measurement, in turn', positiveInteger, 1)
    .option('--load', 'measure loading only, and its peak memory')
    .option('--compare', 'also measure Transformers (and PEFT) on PyTorch, in turn; quantized weights are compared with bfloat16')
    .option('--llamacpp', "also measure llama.cpp's Q8_0 and Q4_0 beside int8 and int4: the decoder only, 320 prompt tokens")
    .option(
      '--openvino',
      'also measure OpenVINO, in turn: one tile through the vision tower (float32, int8), and 320 prompt tokens and decoding (int8, int4)'
    )
    .option('--roofline', "measure the machine's limits in the same run, and print each figure's share of them")
    .option('--train', 'measure training steps: LoRA of rank 16 on the decoder, the rest frozen, one tile and 80 words a row')
    .option('--all-weights', 'with --train: train all weights instead of LoRA')
    .option('--steps <n>', 'training steps in one process, the first as a warm-up; 4 by default', positiveInteger)
    .option('--profile', 'measure the time by op')
    .option('--quality', 'measure quality by precision: logits against float32, perplexity, right answers')
    .option('--eval <file>', "questions and answers in InternVL's jsonl, for --quality")
    .option('--rows <n>', 'number of rows of --eval to use, from the first', positiveInteger)
    .addOption(new Option('--engine <name>', 'engine; by default the fastest available').choices(engineNames))
    .option('--json <file>', 'also write the figures as JSON; - writes to standard output instead of the table')
    .option(
      '--history [file]',
      'append the figures to a file of JSON lines and plot them as PNG; .bench/history.jsonl by default'
    )
    .addHelpText('after', examples)
    .showHelpAfterError('(add --help for all options)')
  return command.action(async (given: Omit<Flags, 'checkpoint'> & { readonly checkpoint?: readonly string[] }) => {
    const flags = { ...given, checkpoint: given.checkpoint ?? [demoModel] }
    const error = conflict(flags)
    if (error) command.error(`error: ${error}`, { exitCode: 2 })
    await run(flags)
  })
}
