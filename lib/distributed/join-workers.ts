import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { forceSetupHint, setupHint } from '../engines/install/hints.js'
import { installedFolder } from '../engines/loaders.js'
import { loadNative, type NativeBackend, nativeBackend } from '../engines/native.js'
import { errorText, type Issue, type Issues, invalid, issue, whenValid } from '../error.js'
import { tf } from '../tf.js'
import { type MeetOptions, meetWorkers } from './meet-workers.js'
import { serverDef, taskName } from './server-def.js'
import { networkIssues } from './worker-addresses.js'
import { type WorkerGroup, workerError, workerGroup } from './worker-group.js'

export interface JoinOptions extends Pick<MeetOptions, 'onWaiting'> {
  /** `host:port` of every worker in the order of their ranks, the same on every worker. */
  readonly addresses: readonly string[]
  /** Index of this worker. */
  readonly rank: number
  /** Allows addresses that the internet may reach. */
  readonly trustNetwork?: boolean
  /** Time to wait for the other workers. Default: 60. */
  readonly timeoutSeconds?: number
  readonly env?: NodeJS.ProcessEnv
}

/** Reasons why this machine's engine cannot work with others. */
export const collectivesIssues = (
  hasCollectives: boolean | undefined,
  platform = `${process.platform} ${process.arch}`
): readonly Issue[] => {
  const old = `several workers need a native engine of this version; build it again with \`${forceSetupHint}\``
  const lacking = `several workers: this machine's build of TensorFlow (${platform}) has no collective operations; train with one worker`
  if (hasCollectives === undefined) return [issue('NoCollectives', old, { fix: forceSetupHint })]
  return hasCollectives ? [] : [issue('NoCollectives', lacking)]
}

/** The native engine before its first tensor. Errors: an engine that is missing, old, or without collective operations. */
const loadEngine = async (env: NodeJS.ProcessEnv): Promise<E.Either<Issues, NativeBackend>> => {
  const other = env.INTERNVL_ENGINE
  if (other && other !== 'native')
    return invalid(
      'NoCollectives',
      `several workers need the native engine, and INTERNVL_ENGINE is ${other}; unset it, and set the engine up with \`${setupHint}\``
    )
  return pipe(
    await installedFolder(env),
    E.chain((folder) =>
      E.tryCatch(
        () => loadNative(folder),
        (error): Issues => [
          issue('BrokenEngine', `the native engine does not load (${errorText(error)}); repair with \`${forceSetupHint}\``)
        ]
      )
    ),
    E.map(() => nativeBackend()!),
    E.chain((native) => whenValid(collectivesIssues(native.hasCollectives), () => native))
  )
}

/**
 * Joins the workers of a run: starts this worker's gRPC server and waits for the others. Call it before `selectEngine` and before any
 * tensor exists. The process of a group that failed cannot join again. Errors: public addresses without `trustNetwork`, a port in use, an
 * engine without collective operations, workers that do not come.
 */
export const joinWorkers = (options: JoinOptions): TE.TaskEither<Issues, WorkerGroup> => {
  const { addresses, rank, trustNetwork = false, timeoutSeconds = 60, env = process.env, onWaiting } = options
  env.TF_CPP_MIN_LOG_LEVEL ??= '3' // a worker that ends is reported as one error, not as TensorFlow's log of every thread
  const connect = (native: NativeBackend): E.Either<Issues, WorkerGroup> => {
    if (tf.memory().numTensors > 0) throw new RangeError('joinWorkers: call it before the first tensor is made')
    return E.tryCatch(
      () => {
        native.enableCollectives(serverDef({ addresses, rank, timeoutSeconds }), `${taskName(rank)}/`)
        return workerGroup(native, addresses, rank)
      },
      (error) => workerError(addresses, rank, error).issues
    )
  }
  return pipe(
    TE.fromTask(() => networkIssues(addresses, trustNetwork)),
    TE.chainEitherK((issues) => whenValid(issues, () => undefined)),
    TE.chain(() => () => loadEngine(env)),
    TE.chainFirst(() => () => meetWorkers({ addresses, rank, timeoutSeconds, onWaiting })),
    TE.chainEitherK(connect)
  )
}
