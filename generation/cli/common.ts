import { SingleBar } from 'cli-progress'
import { type Command, InvalidArgumentError, Option } from 'commander'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { engineNames } from '../../lib/engines/engine.js'
import type { EngineName } from '../../lib/engines/index.js'
import { type Issues, orThrow } from '../../lib/error.js'
import type { InternVLCheckpoint } from '../checkpoint/load.js'
import { type HubOptions, modelFolder } from '../hub/index.js'
import { hubView } from './flags/hub-flags.js'
import { type PrecisionFlags, precisionOptions, withPrecisionOptions } from './flags/precision-flags.js'

/** Progress and remarks go to standard error; standard output is for answers. */
export const say = (line: string): void => void process.stderr.write(`${line}\n`)

/** A positive whole number, for commander. */
export const wholeNumber = (text: string): number => {
  const n = Number(text)
  if (!Number.isSafeInteger(n) || n < 1) throw new InvalidArgumentError(`${JSON.stringify(text)} is no whole number above 0.`)
  return n
}

/** A step of V2PE, for commander: a number, a fraction, or auto. */
const visualDelta = (text: string): number | 'auto' => {
  if (text === 'auto') return text
  const [, over, under] = /^([\d.]+)(?:\/([\d.]+))?$/.exec(text) ?? []
  const delta = Number(over) / Number(under ?? 1)
  if (!(delta > 0 && delta <= 1)) throw new InvalidArgumentError('It should be auto, or above 0 and at most 1, as 0.25 or 1/4.')
  return delta
}

/** Appends to the values that a repeatable option has so far. */
export const repeated = (value: string, before: readonly string[] = []): readonly string[] => [...before, value]

/** What every command takes that may name a repository of the hub. */
export interface HubFlags {
  readonly revision?: string
  readonly offline?: true
}

const hubHelp = `
A model that is no folder here and reads org/name is downloaded into the cache that Python shares. HF_HOME and HF_HUB_CACHE place it,
HF_TOKEN (or \`hf auth login\`) opens what is private or gated, HF_ENDPOINT names another hub, HF_HUB_OFFLINE=1 asks none.`

/** Adds the options of `HubFlags`. */
export const withHubOptions = (command: Command): Command =>
  command
    .option('--revision <name>', 'branch, tag or commit of a model of the hub; main by default')
    .option('--offline', 'ask no hub: what is cached is used')
    .addHelpText('after', hubHelp)

/** Runs what may ask the hub about `name`, with its progress on standard error. */
export const withHubView = async <A>(
  name: string,
  { revision, offline }: HubFlags,
  task: (name: string, options: HubOptions) => TaskEither<Issues, A>
): Promise<A> => {
  const view = hubView(name)
  try {
    return await orThrow(task(name, { ...view.options, revision, offline }))
  } finally {
    view.end()
  }
}

/** The folder of a model; one of the hub is brought into the cache first. */
export const folderOf = (model: string, flags: HubFlags): Promise<string> => withHubView(model, flags, modelFolder)

/** What every command that runs a model takes. */
export interface ModelFlags extends HubFlags, PrecisionFlags {
  readonly model?: string
  readonly engine?: EngineName
  readonly maxNewTokens?: number
  readonly maxPatches?: number
  readonly adapter?: string
  readonly visualDelta?: number | 'auto'
}

/** Adds `--engine`. */
export const withEngineOption = (command: Command): Command =>
  command.addOption(new Option('--engine <name>', 'where to compute; the best one at hand by default').choices(engineNames))

/** Adds the options of `ModelFlags` but for what is about answers. */
export const withLoadOptions = (command: Command): Command =>
  withEngineOption(withPrecisionOptions(withHubOptions(command)))
    .option('-m, --model <name>', 'checkpoint folder, or org/name of the hub; the small demo model of the package by default')
    .option('--adapter <folder>', "LoRA adapter in PEFT's format; without --model, on the model that it was made for")
    .option('--max-patches <n>', "tiles of a picture at most; the checkpoint's own number by default", wholeNumber)

/** Adds the options of `ModelFlags`. */
export const withModelOptions = (command: Command): Command =>
  withLoadOptions(command)
    .option('--max-new-tokens <n>', "tokens of an answer at most; the checkpoint's own number by default", wholeNumber)
    .option(
      '--visual-delta <n>',
      'V2PE: how far an image token advances the position, as 0.25 or 1/4; auto: the largest power of two with which all fits; for models trained so',
      visualDelta
    )

/** Options for `answer` from flags, those that were given. */
export const answerOptions = ({ maxNewTokens, maxPatches, visualDelta }: ModelFlags) => ({
  ...(visualDelta === undefined ? {} : { visualDelta }),
  ...(maxNewTokens === undefined ? {} : { maxNewTokens }),
  ...(maxPatches === undefined ? {} : { maxPatches })
})

/** The model that an adapter was made for; it is told, for nobody named it. */
const baseOf = async (adapter: string): Promise<string | undefined> => {
  const { adapterBase } = await import('../../models/lora/adapter.js')
  const base = await orThrow(adapterBase(adapter))
  if (base !== undefined) say(`${adapter}: made for ${base}; --model names another`)
  return base
}

/** Opens the model that the flags name, with a bar on standard error when it takes a person's time. */
export const loadWithProgress = async ({ model, engine, adapter, ...flags }: ModelFlags): Promise<InternVLCheckpoint> => {
  const named = model ?? (adapter === undefined ? undefined : await baseOf(adapter))
  const folder = named === undefined ? undefined : await folderOf(named, flags)
  const { load } = await import('../checkpoint/load.js') // TensorFlow.js takes a while to load: not for `--help`
  const bar = new SingleBar({ format: 'loading [{bar}] {value}/{total} MB', stream: process.stderr, hideCursor: true })
  const begun = performance.now()
  let shown = false
  const onProgress = (done: number, total: number): void => {
    if (!shown && (!process.stderr.isTTY || performance.now() - begun < 500)) return
    if (!shown) bar.start(Math.round(total / 1e6), 0)
    shown = true
    bar.setTotal(Math.round(total / 1e6)) // what is packed first has another
    bar.update(Math.round(done / 1e6))
  }
  try {
    return await load(folder, { engine, adapter, ...precisionOptions(flags), onProgress })
  } finally {
    if (shown) bar.stop()
  }
}

/** A bar of bytes on standard error where a person looks at it. */
export const progressBar = (doing: string) => {
  const bar = new SingleBar({ format: `${doing} [{bar}] {value}/{total} MB, {eta_formatted} left`, stream: process.stderr })
  let shown = false
  const update = (done: number, total: number): void => {
    if (!process.stderr.isTTY) return
    if (!shown) bar.start(Math.round(total / 1e6), 0)
    shown = true
    bar.update(Math.round(done / 1e6))
  }
  return { update, stop: () => (shown ? bar.stop() : undefined) }
}

/** Ends a run after its step when a person asks for it; asked twice, at once. */
export const interruption = (): AbortSignal => {
  const controller = new AbortController()
  process.once('SIGINT', () => {
    say('stopping after this step; once more stops at once')
    controller.abort()
  })
  return controller.signal
}
