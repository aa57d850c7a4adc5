import * as E from 'fp-ts/lib/Either.js'
import { getOrThrow, type Issue, type Issues, issue } from '../error.js'
import { type Engine, type EngineName, engineNames, type Loaders } from './engine.js'
import { loaders } from './loaders.js'

export interface EngineOptions {
  /** Forces an engine, as `INTERNVL_ENGINE` does. */
  readonly engine?: EngineName | undefined
  /** Threads of one operation; the native engine reads it once, when it is first loaded. */
  readonly threads?: number | undefined
}

/** The engines to try, in order: the one that is asked for, else all. An unknown name is an error that names the known ones. */
export const candidates = (asked: string | undefined): E.Either<Issues, readonly EngineName[]> => {
  if (!asked) return E.right(engineNames)
  const known = engineNames.find((name) => name === asked)
  if (known) return E.right([known])
  const message = `no engine is called ${JSON.stringify(asked)}: INTERNVL_ENGINE (or the option) is one of ${engineNames.join(', ')}`
  return E.left([issue('UnknownEngine', message, { expected: engineNames, actual: asked, mend: 'unset INTERNVL_ENGINE' })])
}

const explain = (asked: string | undefined, refused: readonly Issue[]): string =>
  asked ? 'it was asked for' : refused.map(({ message }) => message).join('; ') || 'it is the fastest, and set up'

/** What the machine can do instead of an engine that was forced: the others but for `native` need no set-up. */
const instead = (asked: string): Issue => {
  const others = engineNames.filter((name) => name !== asked && name !== 'native').join(' or ')
  return issue(
    'EngineForced',
    `${asked} was asked for by name; without that the best engine at hand runs, and ${others} needs no set-up`
  )
}

/** Loads the first candidate that can be; all reasons when none can, and what can where one was forced. */
export const chooseEngine =
  (from: Loaders) =>
  async (asked: string | undefined): Promise<E.Either<Issues, Engine>> => {
    const names = candidates(asked)
    if (E.isLeft(names)) return names
    const refused: Issue[] = []
    for (const name of names.right) {
      const loaded = await from[name]()
      if (E.isRight(loaded)) return E.right({ name, why: explain(asked, refused), refused, ...loaded.right })
      refused.push(...loaded.left)
    }
    return E.left([...refused, ...(asked ? [instead(asked)] : [])] as unknown as Issues) // every candidate gave its reasons
  }

const setThreads = (threads: number | undefined): void => {
  if (threads === undefined) return
  if (!Number.isInteger(threads) || threads < 1) throw new RangeError(`threads: expected a whole number from 1, got ${threads}`)
  process.env.TF_NUM_INTRAOP_THREADS = process.env.OMP_NUM_THREADS = String(threads)
}

const saySlower = ({ name, refused }: Engine): void => {
  if (refused.length > 0) process.stderr.write(`internvl: running on the slower ${name} engine, for ${refused[0]?.message}\n`)
}

let queue: Promise<unknown> = Promise.resolve()
let current: { readonly asked: string | undefined; readonly engine: Engine } | undefined

const select = async ({ engine: option, threads }: EngineOptions): Promise<Engine> => {
  const asked = option ?? (process.env.INTERNVL_ENGINE || undefined)
  if (current && (asked ?? current.asked) === current.asked) return current.engine
  setThreads(threads)
  const engine = getOrThrow(await chooseEngine(loaders)(asked))
  if (!current) saySlower(engine)
  current = { asked, engine }
  return engine
}

/**
 * Chooses what runs the tensors: the native engine, else wasm, else cpu, unless the option or `INTERNVL_ENGINE` forces one.
 * Calls are taken one after the other; to call it again costs nothing. It rejects with an `InternVLError` when the engine is
 * unknown, or forced and not at hand. When the choice falls on a slower engine, one line on standard error says why.
 */
export const selectEngine = (options: EngineOptions = {}): Promise<Engine> => {
  const selected = queue.then(() => select(options))
  queue = selected.catch(() => undefined)
  return selected
}
