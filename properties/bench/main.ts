import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Command, Option } from 'commander'
import { wholeNumber } from '../../generation/cli/common.js'
import { autoSetup } from '../../generation/cli/setup.js'
import { demoModel } from '../../generation/load.js'
import { type Measured, type MeasureOptions, measure } from './measure.js'
import { python } from './python.js'

interface Flags extends MeasureOptions {
  readonly json?: true
  readonly compare?: true
  readonly rounds: number
  /** This process measures once and prints one line. */
  readonly once?: true
}

const execute = promisify(execFile)
const here = (name: string): string => fileURLToPath(new URL(name, import.meta.url))

const lastLine = (text: string): Measured => JSON.parse(text.trim().split('\n').at(-1)!)

const flagsOf = ({ checkpoint, dtype, tiles, newTokens, runs, load }: Flags): readonly string[] => [
  ...['--checkpoint', checkpoint, '--dtype', dtype, '--tiles', `${tiles}`, '--new-tokens', `${newTokens}`, '--runs', `${runs}`],
  ...(load ? ['--load'] : [])
]

/** A process of its own for each measurement: peak memory is then its own too. */
const ours = async (flags: Flags): Promise<Measured> =>
  lastLine(
    (await execute(process.execPath, ['--import', 'tsx', here('main.ts'), '--once', ...flagsOf(flags)], { maxBuffer: 2 ** 26 }))
      .stdout
  )

const theirs = async (flags: Flags): Promise<Measured> =>
  lastLine((await execute(python(), [here('bench_transformers.py'), ...flagsOf(flags)], { maxBuffer: 2 ** 26 })).stdout)

const smaller = ['load_s', 'vision_s', 'prefill_s', 'peak_rss_mb'] as const
const larger = ['decode_tokens_per_s'] as const
const keys = [...smaller, ...larger]

/** The best of several measurements, each figure by itself. */
const best = (all: readonly Measured[]): Measured => ({
  ...all[0]!,
  ...Object.fromEntries(
    smaller.flatMap((key) => (all[0]![key] === undefined ? [] : [[key, Math.min(...all.map((m) => m[key]!))]]))
  ),
  ...Object.fromEntries(
    larger.flatMap((key) => (all[0]![key] === undefined ? [] : [[key, Math.max(...all.map((m) => m[key]!))]]))
  )
})

/** How many times as fast, or for memory as small, the first is. */
const ratio = (key: (typeof keys)[number], a: Measured, b: Measured): number =>
  key === 'decode_tokens_per_s' ? a[key]! / b[key]! : key === 'peak_rss_mb' ? a[key] / b[key] : b[key]! / a[key]!

const table = (columns: readonly Measured[]): string => {
  const [own, other] = columns
  const cells = keys.flatMap((key) => {
    if (own![key] === undefined) return []
    const values = columns.map((m) => m[key]!.toFixed(key === 'peak_rss_mb' ? 0 : 2).padStart(14))
    const note = other ? `${ratio(key, own!, other).toFixed(2)}x ${key === 'peak_rss_mb' ? 'its memory' : 'its speed'}` : ''
    return [`${key.padEnd(22)}${values.join('')}   ${note}`.trimEnd()]
  })
  return [`${''.padEnd(22)}${columns.map(({ engine }) => engine.padStart(14)).join('')}`, ...cells].join('\n')
}

const say = (line: string): void => void process.stderr.write(`${line}\n`)

/** Measures in turn, ours, theirs, ours, …, so that a machine whose speed drifts is fair to both. */
const bench = async (flags: Flags): Promise<void> => {
  if (flags.once) return console.log(JSON.stringify(await measure(flags)))
  if (flags.compare) python()
  await autoSetup()
  const [own, other]: [Measured[], Measured[]] = [[], []]
  for (let round = 1; round <= flags.rounds; round++) {
    say(`round ${round} of ${flags.rounds}`)
    own.push(await ours(flags))
    if (flags.compare) other.push(await theirs(flags))
  }
  const columns = [best(own), ...(other.length > 0 ? [best(other)] : [])]
  if (flags.json) console.log(JSON.stringify(columns.length > 1 ? columns : columns[0]))
  else
    console.log(
      `${flags.checkpoint}, ${flags.dtype}, ${flags.tiles} tiles, best of ${flags.rounds} x ${flags.runs} runs\n${table(columns)}`
    )
}

await new Command('bench')
  .description('time loading, vision, the first token and decoding, and read the peak memory')
  .option('--checkpoint <dir>', 'a checkpoint folder; the demo model by default', demoModel)
  .addOption(new Option('--dtype <name>', 'what to compute in').choices(['float32']).default('float32'))
  .option('--tiles <n>', 'tiles of the picture', wholeNumber, 1)
  .option('--new-tokens <n>', 'tokens to decode', wholeNumber, 32)
  .option('--runs <n>', 'runs in one process; the best counts', wholeNumber, 3)
  .option('--rounds <n>', 'processes in turn; the best counts', wholeNumber, 1)
  .option('--load', 'time loading alone')
  .option('--compare', 'time Transformers too, in turn (`npm run bench:setup` first)')
  .option('--json', 'the figures as JSON')
  .addOption(new Option('--once').hideHelp())
  .action(bench)
  .parseAsync()
  .catch((error: Error) => {
    say(`bench: ${error.message}`)
    process.exitCode = 1
  })
