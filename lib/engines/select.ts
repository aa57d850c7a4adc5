import { isNonEmpty } from 'fp-ts/lib/Array.js'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as NEA from 'fp-ts/lib/NonEmptyArray.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { getOrThrow, InternVLError, type Issue, type Issues, invalid, issue, valueText } from '../error.js'
import { type Device, deviceOf, deviceVariables } from './device.js'
import { type Engine, type EngineName, engineNames, type Loaders } from './engine.js'
import { loaders } from './loaders.js'
import { hasGpu, thisGpuChoice } from './machine.js'

export interface EngineOptions {
  /** Forces an engine, as `INTERNVL_ENGINE` does. */
  readonly engine?: EngineName | undefined
  /**
   * The device of the native engine, as `INTERNVL_DEVICE`: the index of an NVIDIA GPU among the visible ones, or `cpu`. TensorFlow reads
   * it only when first loaded.
   */
  readonly device?: Device | undefined
  /** Number of threads for one operation. The native engine reads it only when first loaded. */
  readonly threads?: number | undefined
}

/** The engines to try, in order: the requested one, else all. Unknown names are an error that lists the known names. */
export const candidates = (requested: string | undefined): E.Either<Issues, NEA.NonEmptyArray<EngineName>> => {
  if (!requested) return E.right([...engineNames])
  const known = engineNames.find((name) => name === requested)
  if (known) return E.right([known])
  const message = `no engine is called ${valueText(requested)}: INTERNVL_ENGINE (or the option) is one of ${engineNames.join(', ')}`
  return invalid('UnknownEngine', message, { expected: engineNames, actual: requested, fix: 'unset INTERNVL_ENGINE' })
}

const reasonFor = (requested: string | undefined, unavailable: readonly Issue[]): string =>
  requested
    ? 'it was requested'
    : unavailable.map(({ message }) => message).join('; ') || 'it is the fastest engine, and installed'

/** The alternatives to a forced engine. Only `native` needs a set-up. */
const alternatives = (requested: string): Issue => {
  const others = engineNames.filter((name) => name !== requested && name !== 'native').join(' or ')
  const message = `${requested} was requested by name; without a name the fastest available engine runs, and ${others} needs no set-up`
  return issue('EngineForced', message)
}

/** Loads the first engine of `names` that can be loaded; `unavailable` holds the issues of the engines tried before. */
const loadFirst = async (
  [name, ...slower]: NEA.NonEmptyArray<EngineName>,
  from: Loaders,
  requested: string | undefined,
  unavailable: readonly Issue[] = []
): Promise<E.Either<Issues, Engine>> => {
  const loaded = await from[name]()
  if (E.isRight(loaded)) return E.right({ name, reason: reasonFor(requested, unavailable), unavailable, ...loaded.right })
  const issues = NEA.concat(loaded.left)([...unavailable])
  return isNonEmpty(slower) ? loadFirst(slower, from, requested, issues) : E.left(issues)
}

/** Loads the first candidate that can be loaded. Otherwise the issues of all candidates and, for a forced engine, the alternatives. */
export const chooseEngine =
  (from: Loaders) =>
  (requested: string | undefined): Promise<E.Either<Issues, Engine>> =>
    pipe(
      TE.fromEither(candidates(requested)),
      TE.chain((names) =>
        pipe(() => loadFirst(names, from, requested), TE.mapLeft(NEA.concat(requested ? [alternatives(requested)] : [])))
      )
    )()

/** Throws an `InternVLError` for a variable of the environment whose value names no kernel that the engine has. */
const refuseUnknownKernels = ({ issues = [] }: Engine): void => {
  const unknown = issues.filter(({ _tag }) => _tag === 'UnknownKernel')
  if (isNonEmpty(unknown)) throw new InternVLError(unknown)
}

const setThreads = (threads: number | undefined): void => {
  if (threads === undefined) return
  if (!Number.isInteger(threads) || threads < 1)
    throw new RangeError(`threads: expected a whole number from 1, got ${valueText(threads)}`)
  process.env.TF_NUM_INTRAOP_THREADS = process.env.OMP_NUM_THREADS = String(threads)
}

const warnSlower = ({ name, unavailable: [first] }: Engine): void => {
  if (first) process.stderr.write(`internvl: running on the slower ${name} engine: ${first.message}\n`)
}

/** Makes CUDA see the requested device alone, before TensorFlow is loaded. Throws a `RangeError` for a device that cannot be meant. */
const setDevice = (option: Device | undefined, env: NodeJS.ProcessEnv = process.env): Device | undefined => {
  const setting = option === undefined ? 'INTERNVL_DEVICE' : 'device'
  const value = option ?? (env.INTERNVL_DEVICE || undefined)
  if (value === undefined) return undefined
  const device = deviceOf(setting, value)
  Object.assign(env, deviceVariables(device, env))
  return device
}

/** One line on standard error where a GPU is requested or found, and TensorFlow computes on the CPU. */
const warnCpu = ({ devices }: Engine, device: Device | undefined): void => {
  const isExpected = device === undefined ? process.env.INTERNVL_CUDA !== '0' && hasGpu() : device !== 'cpu'
  if (devices.includes('GPU') || !isExpected) return
  const processor = device === undefined ? 'the CPU' : `the CPU, not on GPU ${device}`
  process.stderr.write(
    `internvl: running on ${processor}: TensorFlow found no GPU (${thisGpuChoice()}); \`internvl doctor\` shows what is missing\n`
  )
}

/** A function that selects an engine. The function remembers the current engine and runs concurrent calls one after the other. */
export const createSelector = (from: Loaders): ((options?: EngineOptions) => Promise<Engine>) => {
  let queue: Promise<unknown> = Promise.resolve()
  let current:
    | { readonly requested: string | undefined; readonly engine: Engine; readonly device: Device | undefined }
    | undefined
  const select = async ({ engine: option, threads, device: deviceOption }: EngineOptions): Promise<Engine> => {
    const requested = option ?? (process.env.INTERNVL_ENGINE || undefined)
    if (current && deviceOption !== undefined && deviceOf('device', deviceOption) !== current.device)
      throw new RangeError(
        `device: ${deviceOption} was requested after the engine was loaded on ${current.device ?? 'the default device'}; request it with the first model, or in another process`
      )
    if (current && (requested ?? current.requested) === current.requested) return current.engine
    setThreads(threads)
    const device = current ? current.device : setDevice(deviceOption)
    const engine = getOrThrow(await chooseEngine(from)(requested))
    refuseUnknownKernels(engine)
    if (!current) {
      warnSlower(engine)
      warnCpu(engine, device)
    }
    current = { requested, engine, device }
    return engine
  }
  return (options = {}) => {
    const selected = queue.then(() => select(options))
    queue = selected.catch(() => undefined)
    return selected
  }
}

/**
 * Selects the engine that executes tensor operations: the native engine, else wasm, else cpu, unless the option or `INTERNVL_ENGINE`
 * forces one. Calling it again is cheap. Rejects with an `InternVLError` where the engine is unknown, or forced and not available.
 * Where a slower engine is selected, one line on standard error gives the reason.
 */
export const selectEngine = createSelector(loaders) // one for the process, because TensorFlow.js has one current backend
