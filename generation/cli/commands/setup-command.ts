import { SingleBar } from 'cli-progress'
import { Command } from 'commander'
import * as E from 'fp-ts/lib/Either.js'
import type { SetupProgress } from '../../../lib/engines/install/build-engine.js'
import { type SetupReport, setup } from '../../../lib/engines/install/setup-engine.js'
import { setupKernels } from '../../../lib/engines/install/setup-kernels.js'
import { thisGpuChoice } from '../../../lib/engines/machine.js'
import type { Issues } from '../../../lib/error.js'

interface SetupFlags {
  readonly force?: true
  readonly json?: true
  readonly auto?: true
}

/** The part of a stream that a progress view writes to. */
type Output = Pick<NodeJS.WriteStream, 'isTTY' | 'write'>

const verbs = {
  wait: 'waiting for',
  download: 'downloading',
  unpack: 'unpacking',
  compile: 'compiling',
  check: 'checking'
} as const
const columns = 80
const smallestBar = 5
const megabytes = (bytes: number): number => Math.round(bytes / 1e6)

/** Title and bar of a step, at most 79 columns wide; a long title is cut. */
const layout = (title: string, unit: string): { readonly format: string; readonly barsize: number } => {
  const freeColumns = columns - 1 - ` [] 9999/9999 ${unit}`.length
  const cut = title.length > freeColumns - smallestBar ? `${title.slice(0, freeColumns - smallestBar - 1)}…` : title
  return { format: `${cut} [{bar}] {value}/{total} ${unit}`, barsize: Math.min(40, freeColumns - cut.length) }
}

/** Shows progress on standard error: on a terminal a bar for every step with a known total, else one line for every step. */
export const progressView = (
  isTerminal: boolean,
  output: Output = process.stderr
): { readonly show: (progress: SetupProgress) => void; readonly end: () => void } => {
  let current = ''
  let bar: SingleBar | undefined
  const end = (): void => {
    bar?.stop()
    bar = undefined
  }
  const show = ({ step, item, done, total }: SetupProgress): void => {
    const title = `internvl setup: ${verbs[step]} ${item}`
    const hasBar = isTerminal && step !== 'wait' && step !== 'check'
    if (title !== current) {
      end()
      current = title
      if (!hasBar || (step === 'compile' && total === 0)) output.write(`${title}\n`)
    }
    if (!hasBar || total === 0) return
    const [unit, scaled] = step === 'compile' ? (['files', (n: number) => n] as const) : (['MB', megabytes] as const)
    if (!bar) {
      bar = new SingleBar({ ...layout(title, unit), stream: output as NodeJS.WriteStream, hideCursor: true })
      bar.start(scaled(total), 0)
    }
    bar.update(scaled(done))
  }
  return { show, end }
}

const printLine = (line: string): void => void process.stderr.write(`internvl setup: ${line}\n`)
const printIssues = (issues: Issues): void => issues.forEach(({ message }) => void printLine(message))

/** Result of a set-up with the kernels; `seconds` counts both. */
interface SetupResult extends SetupReport {
  readonly kernels: 'ready' | 'made' | 'unused' | 'failed'
}

/** Compiles the kernels of an engine. The engine runs without kernels, slower: a failure prints one line. */
const addKernels = async (
  report: SetupReport,
  onProgress: (progress: SetupProgress) => void,
  force: boolean,
  signal: AbortSignal
): Promise<SetupResult['kernels']> => {
  const made = await setupKernels(report.folder, report.plan, { env: process.env, force, signal, onProgress })()
  if (E.isRight(made)) return made.right
  printIssues(made.left)
  return 'failed'
}

/** Sets up engine and kernels, with progress on standard error. Ctrl-C cancels. */
const setupWithProgress = async (force: boolean, verify: boolean): Promise<E.Either<Issues, SetupResult>> => {
  const start = performance.now()
  const { show, end } = progressView(process.stderr.isTTY === true)
  const abort = new AbortController()
  const cancel = (): void => abort.abort()
  process.once('SIGINT', cancel).once('SIGTERM', cancel)
  try {
    const engine = await setup({ onProgress: show, signal: abort.signal, force, verify })()
    if (E.isLeft(engine)) return engine
    const kernels = await addKernels(engine.right, show, force, abort.signal)
    return E.right({ ...engine.right, kernels, seconds: (performance.now() - start) / 1000 })
  } finally {
    process.off('SIGINT', cancel).off('SIGTERM', cancel)
    end()
  }
}

const isMade = ({ state, kernels }: SetupResult): boolean => state === 'made' || kernels === 'made'

/**
 * Sets up the native engine where possible, before the demo and the tests. Never fails, because wasm runs everywhere. Does nothing
 * where `INTERNVL_ENGINE` names another engine.
 */
export const autoSetup = async (env: NodeJS.ProcessEnv = process.env): Promise<void> => {
  if (env.INTERNVL_ENGINE === 'wasm' || env.INTERNVL_ENGINE === 'cpu') return
  const result = await setupWithProgress(false, false)
  if (E.isLeft(result)) printIssues(result.left)
  else if (isMade(result.right)) printLine(`the native engine is ready (${result.right.seconds.toFixed(0)} s)`)
}

const runSetup = async ({ force, json }: SetupFlags): Promise<void> => {
  const gpu = thisGpuChoice()
  printLine(gpu)
  const result = await setupWithProgress(force === true, true)
  if (E.isLeft(result)) {
    printIssues(result.left)
    if (json) console.log(JSON.stringify({ ok: false, issues: result.left }, null, 2))
    process.exitCode = 1
    return
  }
  const { state, kernels, folder, seconds, plan } = result.right
  const { variant, wheel } = plan
  if (json) {
    console.log(JSON.stringify({ ok: true, state, kernels, folder, variant, gpu, tensorflow: wheel.version, seconds }, null, 2))
    return
  }
  const done = isMade(result.right) ? `made in ${seconds.toFixed(0)} s` : 'nothing to do'
  console.log(`${done}: TensorFlow ${wheel.version} (${variant}) in ${folder}`)
}

/** `internvl setup`: installs the native engine; exit code 1 on failure. */
export const setupCommand = (): Command =>
  new Command('setup')
    .description('set up the native engine (TensorFlow) in the user cache')
    .option('--force', 'build the engine again even if an intact one is installed')
    .option('--auto', 'never fail, because wasm runs everywhere; used before the demo and the tests')
    .option('--json', 'print the result as JSON on standard output')
    .action((flags: SetupFlags) => (flags.auto ? autoSetup() : runSetup(flags)))
