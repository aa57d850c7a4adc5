import { dirname, join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { type Issues, invalid, issue } from '../../error.js'
import { thisMachine } from '../machine.js'
import { buildEngine, type SetupProgress } from './build-engine.js'
import type { checkAddon } from './compile-addon.js'
import { enginesFolder, isCurrent } from './engine-folder.js'
import { type Plan, planSetup } from './setup-plan.js'
import { acquireLock, openStaging, removeStaleStaging } from './staging.js'

export interface SetupOptions {
  readonly onProgress?: ((progress: SetupProgress) => void) | undefined
  /** Stops the set-up and its child processes; no file is left behind. */
  readonly signal?: AbortSignal | undefined
  /** Builds the engine even if an intact one is installed. */
  readonly force?: boolean | undefined
  /** Checks an installed engine by the hashes of all files, which takes seconds, not by sizes and stamps. */
  readonly verify?: boolean | undefined
  readonly env?: NodeJS.ProcessEnv
  /** The build to install; by default `planSetup` chooses for this machine. */
  readonly plan?: Plan
  /** Tests whether the addon loads; by default in a child process. */
  readonly checkAddon?: typeof checkAddon
}

export interface SetupReport {
  /** `ready`: an intact engine was installed before. */
  readonly state: 'ready' | 'made'
  readonly folder: string
  readonly plan: Plan
  readonly seconds: number
}

/** An exception of the file system as an issue. */
const ioIssue =
  (folder: string) =>
  (error: unknown): Issues => {
    const reason = error instanceof Error ? error.message : error
    const message = `${folder}: the set-up stopped (${reason}); INTERNVL_CACHE can name another folder`
    return [issue('SetupFailed', message, { path: folder })]
  }

/** Builds the engine in a staging folder, unless another set-up builds the same engine meanwhile. */
const buildWithLock = async (
  plan: Plan,
  engine: string,
  options: SetupOptions
): Promise<E.Either<Issues, SetupReport['state']>> => {
  const { env = process.env, signal, onProgress } = options
  await removeStaleStaging(dirname(engine))
  const staging = await openStaging(engine)
  try {
    const onWait = () => onProgress?.({ step: 'wait', item: 'another set-up of the same engine', done: 0, total: 0 })
    const waited = await acquireLock(staging, engine, signal, onWait)
    if (waited && (await isCurrent(engine))) return E.right('ready')
    const built = await buildEngine({ plan, engine, staging, env, ...options })()
    if (E.isLeft(built) && signal?.aborted) return invalid('Cancelled', 'the set-up was cancelled; nothing was kept')
    return E.map(() => 'made' as const)(built)
  } finally {
    await staging.close()
  }
}

/**
 * Installs the native engine for this machine in the user's cache: TensorFlow's library from its Python wheel, checked against a
 * pinned hash, and the addon compiled against the library. Takes milliseconds where an intact engine is installed. An interrupted
 * set-up leaves no engine folder: only a finished engine is renamed to the path from which engines load.
 */
export const setup = (options: SetupOptions = {}): TE.TaskEither<Issues, SetupReport> => {
  const { env = process.env, force = false, verify = false } = options
  const start = performance.now()
  const install = (plan: Plan, folder: string) => async (): Promise<E.Either<Issues, SetupReport['state']>> =>
    !force && (await isCurrent(folder, verify)) ? E.right('ready') : buildWithLock(plan, folder, options)
  return pipe(
    TE.fromEither(options.plan ? E.right(options.plan) : planSetup(thisMachine(env))),
    TE.chain((plan) => {
      const folder = join(enginesFolder(env), plan.folder)
      return pipe(
        TE.tryCatch(install(plan, folder), ioIssue(folder)),
        TE.chainEitherK((state) => state),
        TE.map((state) => ({ state, folder, plan, seconds: (performance.now() - start) / 1000 }))
      )
    })
  )
}
