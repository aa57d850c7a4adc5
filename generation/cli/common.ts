import { SingleBar } from 'cli-progress'
import { type Command, InvalidArgumentError, Option } from 'commander'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { type Device, deviceOf } from '../../lib/engines/device.js'
import { engineNames } from '../../lib/engines/engine.js'
import type { EngineName } from '../../lib/engines/index.js'
import { type Issues, orThrow } from '../../lib/error.js'
import { IMAGE_BACKENDS, type ImageBackend } from '../../processors/image/image-backend.js'
import type { InternVLCheckpoint } from '../checkpoint/load.js'
import { type HubOptions, modelFolder } from '../hub/index.js'
import { hubProgress } from './flags/hub-flags.js'
import { type PrecisionFlags, precisionOptions, withPrecisionOptions } from './flags/precision-flags.js'

/** Prints a line on standard error. Standard output is for results. */
export const info = (line: string): void => void process.stderr.write(`${line}\n`)

/** Parses a TCP port for commander. */
export const portNumber = (text: string): number => {
  const port = Number(text)
  if (!/^\d+$/.test(text) || port > 65535) throw new InvalidArgumentError('Expected a port from 0 to 65535.')
  return port
}

/** Parses a whole number above 0 for commander. */
export const positiveInteger = (text: string): number => {
  const n = Number(text)
  if (!Number.isSafeInteger(n) || n < 1) throw new InvalidArgumentError(`${JSON.stringify(text)} is not a whole number above 0.`)
  return n
}

/** Parses a position increment of V2PE for commander: a number, a fraction, or auto. */
const visualDelta = (text: string): number | 'auto' => {
  if (text === 'auto') return text
  const [, numerator, denominator] = /^([\d.]+)(?:\/([\d.]+))?$/.exec(text) ?? []
  const delta = Number(numerator) / Number(denominator ?? 1)
  if (!(delta > 0 && delta <= 1))
    throw new InvalidArgumentError('Expected auto, or a number above 0 and at most 1, such as 0.25 or 1/4.')
  return delta
}

/** Appends a value of a repeatable option for commander. */
export const appendValue = (value: string, before: readonly string[] = []): readonly string[] => [...before, value]

/** Options of commands that accept a repository of the hub. */
export interface HubFlags {
  readonly revision?: string
  readonly offline?: true
  readonly mmproj?: string
}

const hubHelp = `
A model named org/name that is not a local folder is downloaded from the Hugging Face Hub into the cache that Python shares. HF_HOME and
HF_HUB_CACHE set the cache folder, HF_TOKEN (or \`hf auth login\`) gives access to private and gated models, HF_ENDPOINT sets another hub,
HF_HUB_OFFLINE=1 turns all requests off.`

/** Adds the options of `HubFlags`. */
export const withHubOptions = (command: Command): Command =>
  command
    .option('--revision <name>', 'branch, tag or commit of a model on the hub; default: main')
    .option('--offline', 'send no request to the hub; use cached files only')
    .option('--mmproj <file>', 'vision tower of a model in GGUF; default: the only file named mmproj beside the model')
    .addHelpText('after', hubHelp)

/** Runs a task that may download `name` from the hub, and shows the progress on standard error. */
export const withHubProgress = async <A>(
  name: string,
  { revision, offline, mmproj }: HubFlags,
  task: (name: string, options: HubOptions) => TaskEither<Issues, A>
): Promise<A> => {
  const view = hubProgress(name)
  try {
    return await orThrow(task(name, { ...view.options, revision, offline, mmproj }))
  } finally {
    view.end()
  }
}

/** The folder of a model. Downloads a model of the hub into the cache first. */
export const resolveModelFolder = (model: string, flags: HubFlags): Promise<string> => withHubProgress(model, flags, modelFolder)

/** Options of commands that run a model. */
export interface ModelFlags extends HubFlags, PrecisionFlags {
  readonly model?: string
  readonly engine?: EngineName
  readonly maxNewTokens?: number
  readonly maxPatches?: number
  readonly imageBackend?: ImageBackend
  readonly adapter?: string
  readonly parts?: string
  readonly visualDelta?: number | 'auto'
}

/** Parses a device for commander, and requests it of this process and of those that it starts. */
const requestDevice = (text: string): Device => {
  try {
    const device = deviceOf('device', text)
    process.env.INTERNVL_DEVICE = String(device)
    return device
  } catch (error) {
    throw new InvalidArgumentError(`${(error as Error).message}.`)
  }
}

/** Adds `--engine` and `--device`. */
export const withEngineOption = (command: Command): Command =>
  command
    .addOption(
      new Option('--engine <name>', 'engine to compute with; default: the fastest available engine').choices(engineNames)
    )
    .option(
      '--device <n>',
      'NVIDIA GPU to compute on, by its index among the visible ones, or cpu; default: INTERNVL_DEVICE, else a GPU where one is found',
      requestDevice
    )

/** `--image-backend`. */
export const imageBackendOption = (): Option =>
  new Option(
    '--image-backend <name>',
    "library whose resize of images is computed: Transformers' default, or Pillow as in OpenGVLab's code; default: torchvision"
  ).choices(IMAGE_BACKENDS)

/** `--parts`. */
export const partsOption = (): Option =>
  new Option('--parts <file>', 'JavaScript module whose default export builds the modules that config.json names as custom_parts')

/** Adds the options of `ModelFlags` that concern loading. */
export const withLoadOptions = (command: Command): Command =>
  withEngineOption(withPrecisionOptions(withHubOptions(command)))
    .option(
      '-m, --model <name>',
      'checkpoint folder, GGUF file, or org/name on the hub; default: the small demo model of the package'
    )
    .option(
      '--adapter <folder>',
      'folder of a LoRA adapter in PEFT format; without --model the base model of the adapter is loaded'
    )
    .addOption(partsOption())
    .option('--max-patches <n>', "maximum number of tiles of an image; default: the checkpoint's own", positiveInteger)
    .addOption(imageBackendOption())

/** Adds the options of `ModelFlags`. */
export const withModelOptions = (command: Command): Command =>
  withLoadOptions(command)
    .option('--max-new-tokens <n>', "maximum number of tokens of an answer; default: the checkpoint's own", positiveInteger)
    .option(
      '--visual-delta <n>',
      'V2PE: position increment of an image token, such as 0.25 or 1/4; auto: the largest power of two with which the prompt fits; for models trained with V2PE',
      visualDelta
    )

/** The options of `answer` that were given as flags. */
export const answerOptions = ({ maxNewTokens, maxPatches, visualDelta }: ModelFlags) => ({
  ...(visualDelta === undefined ? {} : { visualDelta }),
  ...(maxNewTokens === undefined ? {} : { maxNewTokens }),
  ...(maxPatches === undefined ? {} : { maxPatches })
})

/** The base model of an adapter, printed because the user did not name it. */
const baseOf = async (adapter: string): Promise<string | undefined> => {
  const { adapterBase } = await import('../../models/lora/adapter.js')
  const base = await orThrow(adapterBase(adapter))
  if (base !== undefined) info(`using ${base}, the base model of ${adapter}`)
  return base
}

/** Loads the model that the flags name, with a progress bar on standard error if loading takes longer than 0.5 s. */
export const loadWithProgress = async ({ model, engine, adapter, ...flags }: ModelFlags): Promise<InternVLCheckpoint> => {
  const named = model ?? (adapter === undefined ? undefined : await baseOf(adapter))
  if (named === undefined && flags.mmproj !== undefined) throw new RangeError('--mmproj: needs --model with a GGUF file')
  const folder = named === undefined ? undefined : await resolveModelFolder(named, flags)
  const { load } = await import('../checkpoint/load.js') // loaded here because TensorFlow.js loads slowly
  const bar = new SingleBar({ format: 'loading [{bar}] {value}/{total} MB', stream: process.stderr, hideCursor: true })
  const startTime = performance.now()
  let shown = false
  const onProgress = (done: number, total: number): void => {
    if (!shown && (!process.stderr.isTTY || performance.now() - startTime < 500)) return
    if (!shown) bar.start(Math.round(total / 1e6), 0)
    shown = true
    bar.setTotal(Math.round(total / 1e6)) // the total changes when weights are quantized first
    bar.update(Math.round(done / 1e6))
  }
  try {
    const { imageBackend, parts } = flags
    return await load(folder, { engine, adapter, imageBackend, parts, ...precisionOptions(flags), onProgress })
  } finally {
    if (shown) bar.stop()
  }
}

/** A progress bar on standard error, of bytes unless a scale and a unit are given; shown on a terminal only. */
export const progressBar = (activity: string, scale = 1e-6, unit = 'MB') => {
  const bar = new SingleBar({
    format: `${activity} [{bar}] {value}/{total} ${unit}, {eta_formatted} left`,
    stream: process.stderr
  })
  let shown = false
  const update = (done: number, total: number): void => {
    if (!process.stderr.isTTY) return
    if (!shown) bar.start(Math.round(total * scale), 0)
    shown = true
    bar.update(Math.round(done * scale))
  }
  return { update, stop: () => (shown ? bar.stop() : undefined) }
}

/** A signal that the first Ctrl-C aborts, to stop training after the current step. The second Ctrl-C ends the process. */
export const interruptSignal = (print: (line: string) => void = info): AbortSignal => {
  const controller = new AbortController()
  process.once('SIGINT', () => {
    print('stopping after this step; press Ctrl-C again to stop immediately')
    controller.abort()
  })
  return controller.signal
}

/** A signal that the first SIGINT or SIGTERM aborts; prints `line` then. The second one ends the process. */
export const stopSignal = (line: string): AbortSignal => {
  const controller = new AbortController()
  const stop = (): void => {
    if (controller.signal.aborted) process.exit(1)
    info(line)
    controller.abort()
  }
  process.on('SIGINT', stop).on('SIGTERM', stop)
  return controller.signal
}
