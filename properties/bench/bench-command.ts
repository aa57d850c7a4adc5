import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { autoSetup } from '../../generation/cli/commands/setup-command.js'
import { isExpectedError } from '../../lib/error.js'
import { checkStored, contestsOf, runContest, stepsOf } from './contest.js'
import { benchCommand, type Flags } from './flags.js'
import type { ContextSteps } from './measure/context-steps.js'
import { machinePeaks } from './measure/machine-peaks.js'
import { profileTable } from './measure/profile.js'
import { contextSteps, profiled } from './processes.js'
import { quality } from './quality/quality.js'
import {
  appendHistory,
  checkpointName,
  commitName,
  defaultHistory,
  type Entry,
  machineName,
  readHistory
} from './report/bench-history.js'
import { peaksLine, rooflineLines } from './report/roofline.js'
import type { Result } from './report/summary.js'
import { contextShares, table, trainingNotes } from './report/table.js'

const say = (line: string): void => void process.stderr.write(`${line}\n`)

const writeJson = async (file: string, value: unknown): Promise<void> => {
  const text = `${JSON.stringify(value, null, 2)}\n`
  if (file === '-') process.stdout.write(text)
  else await writeFile(file, text)
}

/** Throws a `RangeError` if the folder of the JSON file does not exist, before anything is measured. */
const checkJson = (file: string | undefined): void => {
  if (file && file !== '-' && !existsSync(dirname(file))) throw new RangeError(`--json ${file}: no such folder`)
}

/** Profiles every precision at every number of tiles. */
const profileAll = async ({ checkpoint: checkpoints, precision, tiles = [1], newTokens, runs }: Flags): Promise<void> => {
  for (const checkpoint of checkpoints)
    for (const name of precision)
      for (const size of tiles) {
        say(`${checkpointName(checkpoint)}, ${name}, ${size} tiles`)
        console.log(`${profileTable(await profiled({ checkpoint, precision: name, kind: 'tiles', size, newTokens, runs }))}\n`)
      }
}

/** Steps after the shortest and the longest of several contexts, in turn, in every precision. */
const stepsInTurn = async (checkpoint: string, { context = [], precision: names, runs }: Flags) => {
  if (context.length < 2) return []
  const sizes = [Math.min(...context), Math.max(...context)] as const
  const found: ContextSteps[] = []
  for (const precision of names) {
    say(`${sizes.join(' and ')} tokens of text, in turn, ${precision}`)
    found.push(await contextSteps({ checkpoint, precision, sizes, turns: 10 * runs }))
  }
  return found
}

const measureAll = async (flags: Flags): Promise<void> => {
  const { rounds, json, history } = flags
  const runs = flags.train ? stepsOf(flags) : flags.runs
  const file = history === true ? defaultHistory : history
  if (file) readHistory(file) // an invalid history file is an error before anything is measured
  const contests = contestsOf(flags)
  const about = { commit: commitName(), date: new Date().toISOString(), machine: machineName() }
  if (json !== '-') console.log(`${about.machine}; best of ${rounds} x ${runs} ${flags.train ? 'steps' : 'runs'} (median)`)
  const entries: Entry[] = []
  const peaks = flags.roofline ? machinePeaks() : undefined
  if (peaks && json !== '-') console.log(peaksLine(peaks))
  for (const folder of flags.checkpoint) {
    const results: Result[] = []
    if (json !== '-') console.log(`\n${folder}`)
    for (const contest of contests.filter(({ checkpoint }) => checkpoint === folder)) {
      const found = await runContest(contest, rounds, say)
      results.push(...found)
      if (json !== '-')
        console.log(['', table(found), ...trainingNotes(found), ...(peaks ? rooflineLines(found, peaks) : [])].join('\n'))
    }
    const inTurn = await stepsInTurn(folder, flags)
    const shares = contextShares(results, inTurn)
    if (json !== '-' && shares.length > 0) console.log(`\n${shares.join('\n')}`)
    entries.push({
      ...about,
      ...(peaks ? { peaks } : {}),
      checkpoint: checkpointName(folder),
      runs,
      rounds,
      results,
      ...(inTurn.length > 0 ? { contextSteps: inTurn } : {})
    })
  }
  if (json) await writeJson(json, entries)
  if (file) say(`history: ${file}, plotted in ${await appendHistory(file, entries)}`)
}

const bench = async (flags: Flags): Promise<void> => {
  if (flags.engine) process.env.INTERNVL_ENGINE = flags.engine
  checkJson(flags.json)
  await checkStored(flags)
  await autoSetup()
  if (flags.profile) return profileAll(flags)
  if (!flags.quality) return measureAll(flags)
  const { rows, text } = await quality(flags, say)
  if (flags.json !== '-') console.log(text)
  if (flags.json) await writeJson(flags.json, rows)
}

await benchCommand(bench)
  .parseAsync()
  .catch((error: unknown) => {
    say(`bench: ${isExpectedError(error) ? error.message : (error as Error).stack}`)
    process.exitCode = 1
  })
