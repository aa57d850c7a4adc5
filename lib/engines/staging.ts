import { mkdir, readdir, rename, rm } from 'node:fs/promises'
import { hostname } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

/**
 * A folder in which one process makes an engine: `<engine>.staging-<start, ms>-<process>.<count>-<machine>`. It is a ticket too: whoever
 * drew an earlier one for the same engine goes first. No lock is held, so none can be left behind; and if two ever work at the same
 * time, the first to rename wins.
 */
export interface Staging {
  readonly path: string
  readonly start: number
  readonly pid: number
  readonly host: string
}

const host = hostname().replace(/[^\w.]/g, '_') || 'localhost'
const day = 24 * 60 * 60 * 1000

const parse = (path: string): Staging | undefined => {
  const [, start, pid, machine] = /\.staging-(\d+)-(\d+)\.\d+-([\w.]+)$/.exec(path) ?? []
  return machine === undefined ? undefined : { path, start: Number(start), pid: Number(pid), host: machine }
}

const runs = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** Whether its process can still be at work; of another machine's processes only the age is known. */
export const isAlive = ({ start, pid, host: machine }: Staging, now = Date.now()): boolean =>
  now - start < day && (machine !== host || runs(pid))

const remove = (path: string): Promise<void> => rm(path, { recursive: true, force: true, maxRetries: 5 }).catch(() => undefined)

const allStagings = async (engines: string): Promise<readonly Staging[]> => {
  const names = await readdir(engines).catch((): string[] => [])
  return names.flatMap((name) => parse(join(engines, name)) ?? [])
}

/** Removes what killed set-ups left behind. */
export const sweep = async (engines: string): Promise<void> => {
  const stagings = await allStagings(engines)
  await Promise.all(stagings.filter((staging) => !isAlive(staging)).map(({ path }) => remove(path)))
}

let count = 0

/** A new, empty staging folder for `engine`, the finished folder to be. */
export const openStaging = async (engine: string): Promise<Staging> => {
  const start = Date.now()
  const path = `${engine}.staging-${start}-${process.pid}.${count++}-${host}`
  await mkdir(path, { recursive: true })
  return { path, start, pid: process.pid, host }
}

export const closeStaging = ({ path }: Staging): Promise<void> => remove(path)

const before = (a: Staging, b: Staging): boolean => a.start < b.start || (a.start === b.start && a.path < b.path)

/** Waits while a living process with an earlier ticket makes the same engine; whether there was one. */
export const awaitTurn = async (
  mine: Staging,
  engine: string,
  signal?: AbortSignal,
  onWait?: (pid: number) => void
): Promise<boolean> => {
  let waited = false
  for (;;) {
    const others = (await allStagings(dirname(engine))).filter(({ path }) =>
      basename(path).startsWith(`${basename(engine)}.staging-`)
    )
    const first = others.find((other) => before(other, mine) && isAlive(other))
    if (!first || signal?.aborted) return waited
    if (!waited) onWait?.(first.pid)
    waited = true
    await sleep(100)
  }
}

/**
 * Makes `made` the finished folder. Another one that is there already stays if `isWhole` says so: then the first to rename has won.
 * Else it is moved into the staging folder, which goes next.
 */
export const publish = async (made: string, engine: string, staging: Staging, isWhole: () => Promise<boolean>): Promise<void> => {
  if (
    await rename(made, engine).then(
      () => true,
      () => false
    )
  )
    return
  if (await isWhole()) return
  await rename(engine, join(staging.path, 'damaged'))
  await rename(made, engine)
}
