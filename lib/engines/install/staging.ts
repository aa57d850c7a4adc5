import { mkdtemp, readdir, readlink, rename, rm, stat, symlink, unlink, utimes } from 'node:fs/promises'
import { hostname } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { isProcessRunning } from '../../files.js'
import { makePrivateFolder } from './file-trust.js'

/**
 * A folder in which one process builds an engine, `<engine>.staging-<process id>-<host>-<six letters>`. While the folder is open, its
 * modification time is updated every second: a folder with an older time was left by a killed process, even if the id is in use again.
 */
export interface Staging {
  readonly path: string
  readonly close: () => Promise<void>
}

const host = hostname().replace(/\W/g, '_') || 'localhost'
const heartbeatInterval = 1000 // ms
const heartbeatTimeout = 15 * heartbeatInterval

/** Whether the process of a staging folder still runs. For a process of another machine, only the modification time counts. */
export const isAlive = async (path: string): Promise<boolean> => {
  const [, pid, machine] = /\.staging-(\d+)-(\w+)-\w{6}$/.exec(path) ?? []
  if (machine === host && !isProcessRunning(Number(pid))) return false
  return stat(path).then(
    ({ mtimeMs }) => Date.now() - mtimeMs < heartbeatTimeout,
    () => false
  )
}

const remove = (path: string): Promise<void> => rm(path, { recursive: true, force: true, maxRetries: 5 }).catch(() => undefined)

/** Removes the staging folders of killed set-ups. */
export const removeStaleStaging = async (engines: string): Promise<void> => {
  const names = await readdir(engines).catch((): string[] => [])
  const stagings = names.filter((name) => name.includes('.staging-')).map((name) => join(engines, name))
  await Promise.all(stagings.map(async (path) => (await isAlive(path)) || remove(path)))
}

/** The lock of an engine: a symbolic link to the staging folder of the process that builds the engine. */
const lockPath = (engine: string): string => `${engine}.lock`

/** Creates an empty staging folder for the engine folder `engine`. */
export const openStaging = async (engine: string): Promise<Staging> => {
  await makePrivateFolder(dirname(engine))
  const path = await mkdtemp(`${engine}.staging-${process.pid}-${host}-`)
  const timer = setInterval(() => utimes(path, new Date(), new Date()).catch(() => undefined), heartbeatInterval)
  const close = async (): Promise<void> => {
    clearInterval(timer)
    if ((await readlink(lockPath(engine)).catch(() => '')) === basename(path))
      await unlink(lockPath(engine)).catch(() => undefined)
    await remove(path)
  }
  return { path, close }
}

/**
 * Waits while another running process builds the same engine. Returns whether it waited. Two processes can hold the lock at once if
 * both remove the link of a dead process; the second then builds in vain, because `publish` keeps the first finished engine.
 */
export const acquireLock = async (
  { path }: Staging,
  engine: string,
  signal?: AbortSignal,
  onWait?: () => void
): Promise<boolean> => {
  let waited = false
  for (;;) {
    const taken = await symlink(basename(path), lockPath(engine)).then(
      () => false,
      ({ code }: NodeJS.ErrnoException) => code === 'EEXIST' // a file system without symbolic links has no lock
    )
    if (!taken || signal?.aborted) return waited
    const holder = await readlink(lockPath(engine)).catch(() => '')
    if (!(await isAlive(join(dirname(engine), holder)))) await unlink(lockPath(engine)).catch(() => undefined)
    else {
      if (!waited) onWait?.()
      waited = true
      await sleep(100)
    }
  }
}

/**
 * Renames `built` to the engine folder. An existing engine folder stays where `isIntact` holds: another process was first. Otherwise
 * the existing folder is moved into the staging folder, which is removed afterwards.
 */
export const publish = async (
  built: string,
  engine: string,
  staging: Staging,
  isIntact: () => Promise<boolean>
): Promise<void> => {
  const renamed = await rename(built, engine).then(
    () => true,
    () => false
  )
  if (renamed || (await isIntact())) return
  await rename(engine, join(staging.path, 'damaged'))
  await rename(built, engine)
}
