import { Command, InvalidArgumentError } from 'commander'
import { autoSetup } from '../../generation/cli/commands/setup-command.js'
import { readCorpus, writeEntry } from './corpus.js'
import { fuzz, type Tally } from './fuzzer.js'
import { kindNamed, kinds } from './kinds/index.js'
import { isFinding } from './verdict.js'
import { defaultLimits, watchedChild } from './watched-child.js'

interface Flags {
  readonly minutes: number
  readonly seed: number
  readonly kind?: readonly string[]
  readonly index?: number
  readonly children: number
  readonly replay?: true
  readonly save: boolean
}

const number =
  (lowest: number) =>
  (text: string): number => {
    const value = Number(text)
    if (text.trim() !== '' && Number.isFinite(value) && value >= lowest) return value
    throw new InvalidArgumentError(`Use a number of ${lowest} or more.`)
  }

const whole =
  (lowest: number) =>
  (text: string): number => {
    const value = number(lowest)(text)
    if (Number.isSafeInteger(value)) return value
    throw new InvalidArgumentError('Use a whole number.')
  }

const table = (tallies: ReadonlyMap<string, Tally>): string => {
  const sum = (key: keyof Tally) => [...tallies.values()].reduce((n, tally) => n + tally[key], 0)
  const total = { inputs: sum('inputs'), accepted: sum('accepted'), refused: sum('refused'), findings: sum('findings') }
  const rows = [...tallies, ['all', total] as const].map(([name, { inputs, accepted, refused, findings }]) => [name, inputs, accepted, refused, findings]) // biome-ignore format: one line
  return [['kind', 'inputs', 'accepted', 'refused', 'findings'], ...rows]
    .map((row) => row.map((cell, i) => (i === 0 ? String(cell).padEnd(12) : String(cell).padStart(9))).join(' '))
    .join('\n')
}

/** Replays the corpus; the exit code is 1 where an entry is still a finding. */
const replay = async (): Promise<void> => {
  const child = watchedChild(defaultLimits)
  try {
    for (const [name, { kind, input }] of readCorpus()) {
      const verdict = await child.run({ kind, input })
      console.log(`${verdict.outcome.padEnd(9)} ${name} ${isFinding(verdict) ? verdict.detail : ''}`)
      if (isFinding(verdict)) process.exitCode = 1
    }
  } finally {
    await child.close()
  }
}

const run = async (flags: Flags): Promise<void> => {
  await autoSetup()
  if (flags.replay) return replay()
  const { minutes, seed, index, children, save } = flags
  const chosen = flags.kind?.flatMap((names) => names.split(',')).map(kindNamed) ?? kinds
  const end = performance.now() + minutes * 60_000
  process.stderr.write(`seed ${seed}: ${index === undefined ? `${minutes} minutes` : `input ${index}`} of ${chosen.map(({ name }) => name).join(', ')}\n`) // biome-ignore format: one line
  const tallies = await fuzz({
    seed,
    kinds: chosen,
    children: index === undefined ? children : 1,
    ...(index === undefined ? {} : { from: index }),
    isDone: (inputs) => (index === undefined ? performance.now() > end : inputs >= chosen.length),
    onFinding: (finding) => {
      const path = save ? `\n  ${writeEntry(finding)}` : ''
      const { kind, problem, detail } = finding
      console.log(`FINDING ${kind}: ${problem}: ${detail.replaceAll('\n', '\n  ')}\n  --kind ${kind} --seed ${finding.seed} --index ${finding.index}${path}`) // biome-ignore format: one line
    }
  })
  console.log(`seed ${seed}\n${table(tallies)}`)
  if ([...tallies.values()].some(({ findings }) => findings > 0)) process.exitCode = 1
}

await new Command('fuzz')
  .description('give changed files, texts, options and calls to the library, each in a watched child process')
  .option('--minutes <n>', 'time to run', number(0), 10)
  .option('--seed <n>', 'seed of all inputs', whole(0), 1)
  .option('--kind <names...>', `kinds of input: ${kinds.map(({ name }) => name).join(', ')}; all by default`)
  .option('--index <n>', 'run only the input with this index of each kind, as a finding prints it', whole(0))
  .option('--children <n>', 'number of child processes', whole(1), 2)
  .option('--replay', 'run the inputs of properties/fuzz/corpus')
  .option('--no-save', 'do not write findings to properties/fuzz/corpus')
  .action(run)
  .parseAsync()
  .catch((error: Error) => {
    process.stderr.write(`fuzz: ${error.message}\n`)
    process.exitCode = 1
  })
