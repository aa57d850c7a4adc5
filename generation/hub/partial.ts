import { readdir, rename, rm, stat } from 'node:fs/promises'
import { hostname } from 'node:os'
import { basename, dirname, join } from 'node:path'

const host = hostname().replace(/\W/g, '_') || 'localhost'
const silence = 15_000 // ms after which a file of a process that cannot be asked is taken for left behind
const mine = new Set<string>()
let count = 0

const runs = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** Whether nobody writes to a partial download any more: its process ended or, where it is another machine's or Python's, it is silent. */
const isAbandoned = async (path: string): Promise<boolean> => {
  const [, machine, pid] = /\.(\w+)-(\d+)-\d+\.incomplete$/.exec(path) ?? []
  if (machine === host) return Number(pid) === process.pid ? !mine.has(path) : !runs(Number(pid))
  return stat(path).then(
    ({ mtimeMs }) => Date.now() - mtimeMs > silence,
    () => false
  )
}

/** The part of a blob that one writer of this process holds; `close` gives it up, whatever it has come to. */
export interface Partial {
  readonly path: string
  readonly close: () => void
}

/**
 * A file to download a blob to, `<blob>.<machine>-<process>-<n>.incomplete`: what a killed download left of it, taken over by renaming
 * so that only one can, else a new name. No lock is needed, for no two writers ever share a file; two that begin at the same
 * time both download the whole.
 */
export const claimPartial = async (blob: string): Promise<Partial> => {
  const path = `${blob}.${host}-${process.pid}-${++count}.incomplete`
  mine.add(path)
  const folder = dirname(blob)
  const left = (await readdir(folder)).filter((name) => name.startsWith(`${basename(blob)}.`) && name.endsWith('.incomplete'))
  for (const name of left) {
    const old = join(folder, name)
    if (!(await isAbandoned(old))) continue
    const taken = await rename(old, path).then(
      () => true,
      () => false
    )
    if (taken) break
  }
  return { path, close: () => void mine.delete(path) }
}

/** Removes what killed downloads left of a blob that is whole now. */
export const sweepPartials = async (blob: string): Promise<void> => {
  const folder = dirname(blob)
  const left = (await readdir(folder)).filter((name) => name.startsWith(`${basename(blob)}.`) && name.endsWith('.incomplete'))
  await Promise.all(
    left.map(async (name) => ((await isAbandoned(join(folder, name))) ? rm(join(folder, name), { force: true }) : undefined))
  )
}
