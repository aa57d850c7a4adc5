import { readFile } from 'node:fs/promises'
import { freemem, platform } from 'node:os'
import { dirname, join } from 'node:path'
import { parseSize } from './safetensors/shards.js'

/** Memory that a process may still take. */
export interface AvailableMemory {
  /** Bytes without swapping. */
  readonly bytes: number
  /** Bytes with all that the system would swap out. */
  readonly most: number
  /** Whether that is all; else it is an estimate, and more may be had. */
  readonly sure: boolean
}

/** The text of a file, `undefined` where it can't be read. */
export type ReadText = (path: string) => Promise<string | undefined>

const readText: ReadText = (path) => readFile(path, 'utf8').catch(() => undefined)

/** The number after a name at the beginning of a line; not a number where there is none. */
const numberOf = (text: string | undefined, name: string): number =>
  Number(new RegExp(`^${name}:?\\s+(\\d+)`, 'm').exec(text ?? '')?.[1] ?? Number.NaN)

/** Files of a control group in its two versions, and how a line of /proc/self/cgroup names its folder. */
const versions = [
  { root: '/sys/fs/cgroup', line: /^0::(.*)$/m, limit: 'memory.max', usage: 'memory.current', prefix: '' },
  {
    root: '/sys/fs/cgroup/memory',
    line: /^\d+:(?:[^:]*,)?memory(?:,[^:]*)?:(.*)$/m,
    limit: 'memory.limit_in_bytes',
    usage: 'memory.usage_in_bytes',
    prefix: 'total_'
  }
] as const

const ancestors = (path: string): readonly string[] => (path === '/' ? ['/'] : [path, ...ancestors(dirname(path))])

/** What limits of the control groups that a process is in leave: files in the cache make room when it is wanted. */
const groupRooms = async (read: ReadText): Promise<readonly number[]> => {
  const own = (await read('/proc/self/cgroup')) ?? ''
  const folders = versions.flatMap((version) => {
    const [, path] = version.line.exec(own) ?? []
    return path?.startsWith('/') ? ancestors(path).map((each) => ({ ...version, folder: join(version.root, each) })) : []
  })
  const rooms = folders.map(async ({ folder, limit, usage, prefix }) => {
    const [most, used, stat] = await Promise.all([limit, usage, 'memory.stat'].map((name) => read(join(folder, name))))
    const cached = numberOf(stat, `${prefix}inactive_file`) + numberOf(stat, `${prefix}active_file`)
    return Number(most?.trim() || Number.NaN) - Number(used?.trim() || Number.NaN) + (cached || 0)
  })
  return (await Promise.all(rooms)).filter(Number.isFinite)
}

/** Linux: what the kernel says is available, and what limits of control groups leave. */
const linuxMemory = async (read: ReadText): Promise<AvailableMemory | undefined> => {
  const info = await read('/proc/meminfo')
  const [free, swap] = [numberOf(info, 'MemAvailable') * 1024, numberOf(info, 'SwapFree') * 1024]
  if (!Number.isFinite(free)) return undefined
  const rooms = await groupRooms(read)
  const [bytes, most] = [Math.min(free, ...rooms), Math.min(free + (swap || 0), ...rooms)]
  return { bytes: Math.max(0, bytes), most: Math.max(0, most), sure: true }
}

/**
 * Memory at hand. `INTERNVL_MEMORY` (`8GB`) says it where the system does not know; macOS tells only what lies idle, and gives more.
 */
export const availableMemory = async (read: ReadText = readText): Promise<AvailableMemory> => {
  const told = parseSize(process.env.INTERNVL_MEMORY ?? '')
  if (told !== undefined) return { bytes: told, most: told, sure: true }
  const idle = { bytes: freemem(), most: freemem(), sure: platform() === 'win32' }
  return (await linuxMemory(read)) ?? idle
}
