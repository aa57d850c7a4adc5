import { mkdir, mkdtemp, readdir, readlink, rename, rm, stat, symlink, unlink, utimes } from 'node:fs/promises'
import { hostname } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

/**
 * A folder in which one process makes an engine, `<engine>.staging-<process>-<machine>-<six letters>`. While it is open it is touched
 * every second, so that what a killed process left behind is known even when another process has its number by now.
 */
export interface Staging {
  readonly path: string
  readonly close: () => Promise<void>
}

const host = hostname().replace(/\W/g, '_') || 'localhost'
const beat = 1000 // ms
const silence = 15 * beat

const runs = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** Whether the process of a staging folder is still at work on it; of another machine's process only the touches are seen. */
export const isAlive = async (path: string): Promise<boolean> => {
  const [, pid, machine] = /\.staging-(\d+)-(\w+)-\w{6}$/.exec(path) ?? []
  if (machine === host && !runs(Number(pid))) return false
  return stat(path).then(
    ({ mtimeMs }) => Date.now() - mtimeMs < silence,
    () => false
  )
}

const remove = (path: string): Promise<void> => rm(path, { recursive: true, force: true, maxRetries: 5 }).catch(() => undefined)

/** Removes what killed set-ups left behind. */
export const sweep = async (engines: string): Promise<void> => {
  const names = await readdir(engines).catch((): string[] => [])
  const stagings = names.filter((name) => name.includes('.staging-')).map((name) => join(engines, name))
  await Promise.all(stagings.map(async (path) => (await isAlive(path)) || remove(path)))
}

/** Whose turn it is to make an engine: a link to the staging folder of the one at work. */
const turnOf = (engine: string): string => `${engine}.turn`

/** A new, empty staging folder for `engine`, the finished folder to be. */
export const openStaging = async (engine: string): Promise<Staging> => {
  await mkdir(dirname(engine), { recursive: true })
  const path = await mkdtemp(`${engine}.staging-${process.pid}-${host}-`)
  const timer = setInterval(() => utimes(path, new Date(), new Date()).catch(() => undefined), beat)
  const close = async (): Promise<void> => {
    clearInterval(timer)
    if ((await readlink(turnOf(engine)).catch(() => '')) === basename(path)) await unlink(turnOf(engine)).catch(() => undefined)
    await remove(path)
  }
  return { path, close }
}

/**
 * Waits while a living process makes the same engine; whether there was one. Should two ever work at the same time, as when both
 * find the link of a dead one, that costs time only: `publish` lets the first win.
 */
export const awaitTurn = async (
  { path }: Staging,
  engine: string,
  signal?: AbortSignal,
  onWait?: () => void
): Promise<boolean> => {
  let waited = false
  for (;;) {
    const taken = await symlink(basename(path), turnOf(engine)).then(
      () => false,
      ({ code }: NodeJS.ErrnoException) => code === 'EEXIST' // a file system without links has no turns
    )
    if (!taken || signal?.aborted) return waited
    const holder = await readlink(turnOf(engine)).catch(() => '')
    if (!(await isAlive(join(dirname(engine), holder)))) await unlink(turnOf(engine)).catch(() => undefined)
    else {
      if (!waited) onWait?.()
      waited = true
      await sleep(100)
    }
  }
}

/**
 * Makes `made` the finished folder. Another one that is there already stays if `isWhole` says so: then the first to rename has won.
 * Else it is moved into the staging folder, which goes next.
 */
export const publish = async (made: string, engine: string, staging: Staging, isWhole: () => Promise<boolean>): Promise<void> => {
  const renamed = await rename(made, engine).then(
    () => true,
    () => false
  )
  if (renamed || (await isWhole())) return
  await rename(engine, join(staging.path, 'damaged'))
  await rename(made, engine)
}
