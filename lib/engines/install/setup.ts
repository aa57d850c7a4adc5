import { dirname, join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { type Issues, issue } from '../../error.js'
import { thisMachine } from '../machine.js'
import { makeEngine, type SetupProgress } from './build-engine.js'
import type { tryAddon } from './compile-addon.js'
import { enginesFolder, verifyEngine } from './engine-folder.js'
import { type Plan, planSetup } from './setup-plan.js'
import { awaitTurn, openStaging, sweep } from './staging.js'

export interface SetupOptions {
  readonly onProgress?: ((progress: SetupProgress) => void) | undefined
  /** Ends the set-up and the programs it runs; nothing is left behind. */
  readonly signal?: AbortSignal | undefined
  /** Makes the engine anew though a whole one is there. */
  readonly force?: boolean | undefined
  readonly env?: NodeJS.ProcessEnv
  /** What to install; by default what `planSetup` says of this machine. */
  readonly plan?: Plan
  /** Tells whether the addon loads; by default a process of its own tries. */
  readonly tryAddon?: typeof tryAddon
}

export interface SetupReport {
  /** `ready`: nothing was to be done. */
  readonly state: 'ready' | 'made'
  readonly folder: string
  readonly plan: Plan
  readonly seconds: number
}

const isWhole = async (folder: string): Promise<boolean> => E.isRight(await verifyEngine(folder))

/** What the file system says, as an error. */
const ioIssue =
  (folder: string) =>
  (error: unknown): Issues => [
    issue(
      'SetupFailed',
      `${folder}: the set-up stopped (${error instanceof Error ? error.message : error}); INTERNVL_CACHE can name another folder`,
      { path: folder }
    )
  ]

/** Makes the engine in a staging folder, unless another set-up, which came first, has made it meanwhile. */
const makeInTurn = async (plan: Plan, engine: string, options: SetupOptions): Promise<E.Either<Issues, SetupReport['state']>> => {
  const { env = process.env, signal, onProgress } = options
  await sweep(dirname(engine))
  const staging = await openStaging(engine)
  try {
    const onWait = () => onProgress?.({ step: 'wait', what: 'another set-up of the same engine', done: 0, total: 0 })
    const waited = await awaitTurn(staging, engine, signal, onWait)
    if (waited && (await isWhole(engine))) return E.right('ready')
    const made = await makeEngine({ plan, engine, staging, env, ...options })()
    if (E.isLeft(made) && signal?.aborted) return E.left([issue('Cancelled', 'the set-up was cancelled; nothing was kept')])
    return E.map(() => 'made' as const)(made)
  } finally {
    await staging.close()
  }
}

/**
 * Sets up the native engine for this machine in the user's cache: TensorFlow's library from its Python wheel, checked against a pinned
 * hash, and the addon compiled against it. It takes milliseconds when the engine is there and whole. Whatever stops it, only a finished
 * engine ever gets the name that others look for.
 */
export const setup = (options: SetupOptions = {}): TE.TaskEither<Issues, SetupReport> => {
  const { env = process.env, force = false } = options
  const start = performance.now()
  return pipe(
    TE.fromEither(options.plan ? E.right(options.plan) : planSetup(thisMachine(env))),
    TE.chain((plan) => {
      const folder = join(enginesFolder(env), plan.folder)
      const work = async () => (!force && (await isWhole(folder)) ? E.right('ready' as const) : makeInTurn(plan, folder, options))
      return pipe(
        TE.tryCatch(work, ioIssue(folder)),
        TE.chainEitherK((state) => state),
        TE.map((state) => ({ state, folder, plan, seconds: (performance.now() - start) / 1000 }))
      )
    })
  )
}
