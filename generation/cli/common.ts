import { SingleBar } from 'cli-progress'
import { type Command, InvalidArgumentError, Option } from 'commander'
import type { EngineName } from '../../lib/engines/index.js'
import { engineNames } from '../../lib/engines/select.js'
import type { InternVLCheckpoint } from '../load.js'

/** Progress and remarks go to standard error; standard output is for answers. */
export const say = (line: string): void => void process.stderr.write(`${line}\n`)

/** A positive whole number, for commander. */
export const wholeNumber = (text: string): number => {
  const n = Number(text)
  if (!Number.isSafeInteger(n) || n < 1) throw new InvalidArgumentError(`${JSON.stringify(text)} is no whole number above 0.`)
  return n
}

/** Appends to the values that a repeatable option has so far. */
export const repeated = (value: string, before: readonly string[] = []): readonly string[] => [...before, value]

/** What every command that runs a model takes. */
export interface ModelFlags {
  readonly model?: string
  readonly engine?: EngineName
  readonly maxNewTokens?: number
  readonly maxPatches?: number
}

/** Adds the options of `ModelFlags`. */
export const withModelOptions = (command: Command): Command =>
  command
    .option('-m, --model <dir>', 'checkpoint folder; the small demo model that ships with the package by default')
    .option('--max-new-tokens <n>', "tokens of an answer at most; the checkpoint's own number by default", wholeNumber)
    .option('--max-patches <n>', "tiles of a picture at most; the checkpoint's own number by default", wholeNumber)
    .addOption(new Option('--engine <name>', 'where to compute; the best one at hand by default').choices(engineNames))

/** Options for `answer` from flags, those that were given. */
export const answerOptions = ({ maxNewTokens, maxPatches }: ModelFlags) => ({
  ...(maxNewTokens === undefined ? {} : { maxNewTokens }),
  ...(maxPatches === undefined ? {} : { maxPatches })
})

/** Opens the model that the flags name, with a bar on standard error when it takes a person's time. */
export const loadWithProgress = async ({ model, engine }: ModelFlags): Promise<InternVLCheckpoint> => {
  const { load } = await import('../load.js') // TensorFlow.js takes a while to load: not for `--help`
  const bar = new SingleBar({ format: 'loading [{bar}] {value}/{total} MB', stream: process.stderr, hideCursor: true })
  const begun = performance.now()
  let shown = false
  const onProgress = (done: number, total: number): void => {
    if (!shown && (!process.stderr.isTTY || performance.now() - begun < 500)) return
    if (!shown) bar.start(Math.round(total / 1e6), 0)
    shown = true
    bar.update(Math.round(done / 1e6))
  }
  try {
    return await load(model, { ...(engine ? { engine } : {}), onProgress })
  } finally {
    if (shown) bar.stop()
  }
}
