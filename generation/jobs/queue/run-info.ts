import { InternVLError, issue } from '../../../lib/error.js'
import type { RowSettings } from '../rows/row-record.js'
import type { HashStore } from './hash-store.js'
import { JOBS_VERSION } from './job-chunk.js'
import type { QueueConnection } from './queue-connection.js'

/** A submitted file of questions. */
export interface RunInfo {
  readonly version: number
  readonly name: string
  /** Beginning of the ids of its jobs and part of its keys, so that a removed run and a new one of the same name have nothing in common. */
  readonly id: string
  readonly file: string
  readonly sha256: string
  readonly rows: number
  readonly settings: RowSettings
  readonly isOpenAI: boolean
  /** Unix time in milliseconds. */
  readonly created: number
}

/** Hash of all runs by name. */
const RUNS = 'internvl:runs'

/** The hashes of a run. In one slot of a Redis cluster. */
export const keysOf = ({ name, id }: Pick<RunInfo, 'name' | 'id'>) => ({
  /** `submitted`: rows in the queue so far; `cancelled`; `model`: identity of the model, with the name of the worker that came first. */
  state: `internvl:{${name}}:${id}:state`,
  /** `RowAnswer` by row. */
  answers: `internvl:{${name}}:${id}:answers`,
  /** `DeadRow` by row. */
  dead: `internvl:{${name}}:${id}:dead`,
  /** Rows with errors that are in the queue again. */
  retried: `internvl:{${name}}:${id}:retried`,
  /** By row, how many workers ended while they had the row alone. */
  deaths: `internvl:{${name}}:${id}:deaths`,
  /** `WorkerReport` by worker. */
  workers: `internvl:{${name}}:${id}:workers`
})

const invalidRun = (message: string): never => {
  throw new InternVLError([issue('JobsRun', message)])
}

/** Checks a name: it is a part of keys in the database. Throws a `RangeError`. */
const checkRunName = (name: string): string => {
  if (/^[\w.-]{1,100}$/.test(name)) return name
  throw new RangeError(`name ${JSON.stringify(name)}: expected 1 to 100 letters, digits, _, - or .`)
}

const parseRun = (name: string, text: string): RunInfo => {
  const run = JSON.parse(text) as RunInfo
  if (run.version === JOBS_VERSION) return run
  return invalidRun(
    `run ${name}: it was submitted by another version of internvl (format ${run.version}, this one reads ${JOBS_VERSION}); use the same version for all commands`
  )
}

/** All runs by name, those of other versions too. */
export const runNames = async (store: HashStore): Promise<readonly string[]> => {
  const names: string[] = []
  for await (const [name] of store.scan(RUNS)) names.push(name)
  return [...new Set(names)].sort()
}

/** A run; undefined where there is none. Throws an `InternVLError` for a run of another version. */
export const readRun = async (store: HashStore, name: string): Promise<RunInfo | undefined> => {
  const [text] = await store.get(RUNS, [checkRunName(name)])
  return text === undefined ? undefined : parseRun(name, text)
}

/** Registers a run; the one that is registered already is returned. */
export const registerRun = async (store: HashStore, run: RunInfo): Promise<RunInfo> => {
  await store.setNew(RUNS, [[checkRunName(run.name), JSON.stringify(run)]])
  return (await readRun(store, run.name))!
}

/** Deletes a run with its answers. */
export const removeRun = async (store: HashStore, run: RunInfo): Promise<void> => {
  await store.drop(Object.values(keysOf(run)))
  await store.delete(RUNS, [run.name])
}

/** The named run, or the only one. Throws an `InternVLError` that says which runs there are. */
export const findRun = async ({ store, name: queue }: QueueConnection, name: string | undefined): Promise<RunInfo> => {
  const names = await runNames(store)
  const listed = names.length === 0 ? 'there are none; begin with jobs submit' : `there are ${names.join(', ')}`
  const found = name ?? (names.length === 1 ? names[0] : undefined)
  if (found === undefined)
    return names.length === 0
      ? invalidRun(`${queue}: no runs; begin with jobs submit`)
      : invalidRun(`several runs; give --name: ${listed}`)
  const run = await readRun(store, found)
  return run ?? invalidRun(`run ${found}: no such run; ${listed}`)
}
