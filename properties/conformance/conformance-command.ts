import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { Command, InvalidArgumentError } from 'commander'
import { autoSetup } from '../../generation/cli/commands/setup-command.js'
import { selectEngine } from '../../lib/engines/index.js'
import { type Case, findCases, imagesFor } from './case.js'
import { flashCaseChecks, isFlashCase } from './flash-case.js'
import { modelCaseChecks } from './model-case.js'
import type { Check } from './outcome.js'
import { type CoarsePrecision, precisionCaseChecks, tolerances } from './precision-case.js'
import { processorCaseChecks } from './processor-case.js'

interface Flags {
  readonly only?: readonly string[]
  readonly images?: string
  readonly precision?: CoarsePrecision
  readonly json?: true
}

const checksOf = async (one: Case, { images = imagesFor(one.dir), precision }: Flags): Promise<readonly Check[]> => {
  const isModel = !existsSync(join(one.dir, 'processor.json'))
  if (isModel && isFlashCase(one)) return precision ? [] : flashCaseChecks(one, images)
  if (precision) return isModel ? precisionCaseChecks(one, precision) : []
  return isModel ? modelCaseChecks(one, images) : processorCaseChecks(one, images)
}

const count = (checks: readonly Check[], tag: string): number => checks.filter(({ outcome }) => outcome._tag === tag).length

const summary = (checks: readonly Check[]): string => {
  const distances = checks.flatMap((check) => check.distance ?? [])
  const worst = distances.length > 0 ? `, at most ${(100 * Math.max(...distances)).toFixed(2)} % apart` : ''
  return `${count(checks, 'Passed')} passed, ${count(checks, 'Failed')} failed, ${count(checks, 'Skipped')} skipped${worst}`
}

const run = async (dirs: readonly string[], flags: Flags): Promise<void> => {
  const { only: names, json } = flags
  const only = names?.flatMap((name) => name.split(','))
  await autoSetup()
  const engine = await selectEngine()
  const cases = dirs.flatMap(findCases).filter(({ name }) => !only || only.includes(name))
  const unknown = only?.filter((name) => !cases.some((one) => one.name === name)) ?? []
  if (unknown.length > 0) throw new RangeError(`--only ${unknown.join(', ')}: no such case`)
  process.stderr.write(`engine: ${engine.name} (${engine.reason})\n`)
  const all: Check[] = []
  for (const one of cases) {
    const start = performance.now()
    const checks = await checksOf(one, flags).catch((error: Error): readonly Check[] => [
      { name: one.name, outcome: { _tag: 'Failed', message: error.stack ?? error.message } }
    ])
    all.push(...checks)
    process.stderr.write(`${one.name}: ${summary(checks)} (${((performance.now() - start) / 1000).toFixed(1)} s)\n`)
    for (const { name, outcome } of checks)
      if (outcome._tag !== 'Passed' && !json) console.log(`${outcome._tag.toUpperCase()} ${name}: ${outcome.message}`)
  }
  if (json) console.log(JSON.stringify(all, null, 1))
  console.log(summary(all))
  process.exitCode = count(all, 'Failed') > 0 ? 1 : 0
}

const toleranceHelp = Object.entries(tolerances)
  .map(([name, most]) => `${name} at most ${Number((100 * most).toFixed(1))} %`)
  .join(', ')

/** A precision with a tolerance, for commander; `4bit` is an alias of `int4`. */
const precision = (text: string): CoarsePrecision => {
  const name = text === '4bit' ? 'int4' : text
  if (Object.hasOwn(tolerances, name)) return name as CoarsePrecision
  throw new InvalidArgumentError(`Use one of ${Object.keys(tolerances).join(', ')}.`)
}

await new Command('conformance')
  .description('compare results of this project with values that Transformers computed')
  .argument('<dir...>', 'a case, or a folder of cases')
  .option('--only <names...>', 'run only these cases')
  .option('--images <dir>', 'folder of the images; the folder images beside the cases by default')
  .option('--precision <name>', `check only logits, with quantized weights; relative L2 distance: ${toleranceHelp}`, precision)
  .option('--json', 'print every check as JSON before the summary')
  .action(run)
  .parseAsync()
  .catch((error: Error) => {
    process.stderr.write(`conformance: ${error.message}\n`)
    process.exitCode = 1
  })
