import { readdir, rename, rm, stat } from 'node:fs/promises'
import { hostname } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { isProcessRunning } from '../../lib/files.js'

const host = hostname().replace(/\W/g, '_') || 'localhost'
const staleAfter = 15_000 // ms without a write after which the file of an unknown process counts as abandoned
const ownPartials = new Set<string>()
let count = 0

/** Whether a partial download has no writer: its process ended or, for another machine or Python, the file is stale. */
const isAbandoned = async (path: string): Promise<boolean> => {
  const [, machine, pid] = /\.(\w+)-(\d+)-\d+\.incomplete$/.exec(path) ?? []
  if (machine === host) return Number(pid) === process.pid ? !ownPartials.has(path) : !isProcessRunning(Number(pid))
  return stat(path).then(
    ({ mtimeMs }) => Date.now() - mtimeMs > staleAfter,
    () => false
  )
}

/** A partial download of this process; `close` releases the file in any state. */
export interface Partial {
  readonly path: string
  readonly close: () => void
}

/**
 * A file to download a blob to, `<blob>.<machine>-<process>-<n>.incomplete`: the abandoned file of a killed download, which only one
 * process can claim by renaming, or else a new file. No lock is needed, because two writers never share a file; two downloads
 * that start at the same time both download the whole blob.
 */
export const claimPartial = async (blob: string): Promise<Partial> => {
  const path = `${blob}.${host}-${process.pid}-${++count}.incomplete`
  ownPartials.add(path)
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
  return { path, close: () => void ownPartials.delete(path) }
}

/** Deletes abandoned partial downloads of a complete blob. */
export const sweepPartials = async (blob: string): Promise<void> => {
  const folder = dirname(blob)
  const left = (await readdir(folder)).filter((name) => name.startsWith(`${basename(blob)}.`) && name.endsWith('.incomplete'))
  await Promise.all(
    left.map(async (name) => ((await isAbandoned(join(folder, name))) ? rm(join(folder, name), { force: true }) : undefined))
  )
}
