import { SingleBar } from 'cli-progress'
import { Command } from 'commander'
import * as E from 'fp-ts/lib/Either.js'
import type { SetupProgress } from '../../../lib/engines/install/build-engine.js'
import { makeKernels } from '../../../lib/engines/install/compile-kernels.js'
import { type SetupReport, setup } from '../../../lib/engines/install/setup.js'
import type { Issues } from '../../../lib/error.js'

interface SetupFlags {
  readonly force?: true
  readonly json?: true
  readonly auto?: true
}

const say = (line: string): void => void process.stderr.write(`${line}\n`)
const verbs = {
  wait: 'waiting for',
  download: 'downloading',
  unpack: 'unpacking',
  compile: 'compiling',
  check: 'checking'
} as const
const megabytes = (bytes: number): number => Math.round(bytes / 1e6)

/** Shows a set-up on standard error: a bar for what has a size when a person looks on, else a line for each step. */
export const progressView = (
  isTerminal: boolean
): { readonly show: (progress: SetupProgress) => void; readonly end: () => void } => {
  let current = ''
  let bar: SingleBar | undefined
  const end = (): void => {
    bar?.stop()
    bar = undefined
  }
  const show = ({ step, what, done, total }: SetupProgress): void => {
    const title = `${verbs[step]} ${what}`
    if (title !== current) {
      end()
      current = title
      if (!isTerminal || (step !== 'download' && step !== 'unpack')) say(`internvl setup: ${title}`)
    }
    if (!isTerminal || total === 0) return
    if (!bar) {
      bar = new SingleBar({
        format: `internvl setup: ${title} [{bar}] {value}/{total} MB`,
        stream: process.stderr,
        hideCursor: true
      })
      bar.start(megabytes(total), 0)
    }
    bar.update(megabytes(done))
  }
  return { show, end }
}

/** The kernels beside the engine. Without them it runs too, slower: a failure is one line. */
const shownKernels = async (
  { folder, plan }: SetupReport,
  show: (progress: SetupProgress) => void,
  force: boolean,
  signal: AbortSignal
): Promise<void> => {
  const onStart = (): void => show({ step: 'compile', what: 'the kernels', done: 0, total: 0 })
  const made = await makeKernels(folder, plan, { env: process.env, force, signal, onStart })()
  if (E.isLeft(made)) sayIssues(made.left)
}

/** A set-up with its progress on standard error, ended by Ctrl-C. */
const shownSetup = async (force: boolean): Promise<E.Either<Issues, SetupReport>> => {
  const { show, end } = progressView(process.stderr.isTTY === true)
  const abort = new AbortController()
  const cancel = (): void => abort.abort()
  process.once('SIGINT', cancel).once('SIGTERM', cancel)
  const result = await setup({ onProgress: show, signal: abort.signal, force })()
  if (E.isRight(result)) await shownKernels(result.right, show, force, abort.signal)
  process.off('SIGINT', cancel).off('SIGTERM', cancel)
  end()
  return result
}

const sayIssues = (issues: Issues): void => issues.forEach(({ message }) => void say(`internvl setup: ${message}`))

/**
 * What runs before the demo and the tests: the native engine is set up if it can be. It never fails, for wasm runs everywhere, and
 * does nothing where `INTERNVL_ENGINE` names another engine.
 */
export const autoSetup = async (env: NodeJS.ProcessEnv = process.env): Promise<void> => {
  if (env.INTERNVL_ENGINE === 'wasm' || env.INTERNVL_ENGINE === 'cpu') return
  const result = await shownSetup(false)
  if (E.isLeft(result)) sayIssues(result.left)
  else if (result.right.state === 'made') say(`internvl setup: the native engine is ready (${result.right.seconds.toFixed(0)} s)`)
}

const runSetup = async ({
  force = false,
  json = false
}: {
  readonly force?: boolean
  readonly json?: boolean
}): Promise<void> => {
  const result = await shownSetup(force)
  if (E.isLeft(result)) {
    sayIssues(result.left)
    if (json) console.log(JSON.stringify({ ok: false, issues: result.left }, null, 2))
    process.exitCode = 1
    return
  }
  const { state, folder, seconds } = result.right
  const { variant, wheel } = result.right.plan
  if (json) console.log(JSON.stringify({ ok: true, state, folder, variant, tensorflow: wheel.version, seconds }, null, 2))
  else console.log(`${state === 'ready' ? 'nothing to do' : 'made'}: TensorFlow ${wheel.version} (${variant}) in ${folder}`)
}

/** `internvl setup`: makes the native engine; exit code 1 when it can't be. */
export const setupCommand = (): Command =>
  new Command('setup')
    .description('set up the native engine (TensorFlow) in the user cache')
    .option('--force', 'make it anew though a whole one is there')
    .option('--auto', 'as before the demo and the tests: never fail, wasm is there')
    .option('--json', 'the result as JSON on standard output')
    .action((flags: SetupFlags) => (flags.auto ? autoSetup() : runSetup(flags)))
