import { readFile } from 'node:fs/promises'
import { freemem, platform } from 'node:os'
import { dirname, join } from 'node:path'
import { valueText } from './error.js'
import { parseSize } from './safetensors/shards.js'

/** Memory available to the process. */
export interface AvailableMemory {
  /** Bytes without swapping. */
  readonly bytes: number
  /** Bytes including free swap space. */
  readonly bytesWithSwap: number
  /** Whether the numbers are exact; otherwise they are a lower estimate. */
  readonly exact: boolean
}

/** Reads the text of a file; `undefined` if the file cannot be read. */
export type ReadText = (path: string) => Promise<string | undefined>

const readText: ReadText = (path) => readFile(path, 'utf8').catch(() => undefined)

/** The number after a name at the start of a line; NaN if there is none. */
const numberOf = (text: string | undefined, name: string): number =>
  Number(new RegExp(`^${name}:?\\s+(\\d+)`, 'm').exec(text ?? '')?.[1] ?? Number.NaN)

/** File names of control groups, versions 2 and 1, and the pattern of the group's folder in /proc/self/cgroup. */
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

/** Bytes left below the limits of the process's control groups. Cached files count as available: the system drops them on demand. */
const controlGroupMemory = async (read: ReadText): Promise<readonly number[]> => {
  const groups = (await read('/proc/self/cgroup')) ?? ''
  const folders = versions.flatMap((version) => {
    const [, path] = version.line.exec(groups) ?? []
    return path?.startsWith('/') ? ancestors(path).map((group) => ({ ...version, folder: join(version.root, group) })) : []
  })
  const available = folders.map(async ({ folder, limit, usage, prefix }) => {
    const [limitText, usageText, stat] = await Promise.all([limit, usage, 'memory.stat'].map((name) => read(join(folder, name))))
    const cached = numberOf(stat, `${prefix}inactive_file`) + numberOf(stat, `${prefix}active_file`)
    return Number(limitText?.trim() || Number.NaN) - Number(usageText?.trim() || Number.NaN) + (cached || 0)
  })
  return (await Promise.all(available)).filter(Number.isFinite)
}

/** Linux: MemAvailable of the kernel, bounded by the limits of control groups. */
const linuxMemory = async (read: ReadText): Promise<AvailableMemory | undefined> => {
  const info = await read('/proc/meminfo')
  const [free, swap] = [numberOf(info, 'MemAvailable') * 1024, numberOf(info, 'SwapFree') * 1024]
  if (!Number.isFinite(free)) return undefined
  const groups = await controlGroupMemory(read)
  const [bytes, bytesWithSwap] = [Math.min(free, ...groups), Math.min(free + (swap || 0), ...groups)]
  return { bytes: Math.max(0, bytes), bytesWithSwap: Math.max(0, bytesWithSwap), exact: true }
}

/**
 * Available memory. `INTERNVL_MEMORY` (`8GB`) overrides the system's number, and is a `RangeError` where
 * it is no size; macOS reports idle memory only, which is less than available.
 */
export const availableMemory = async (read: ReadText = readText): Promise<AvailableMemory> => {
  const setting = process.env.INTERNVL_MEMORY ?? ''
  const configured = parseSize(setting)
  if (setting.trim() !== '' && configured === undefined)
    throw new RangeError(`INTERNVL_MEMORY: expected a size such as 8GB, got ${valueText(setting)}`)
  if (configured !== undefined) return { bytes: configured, bytesWithSwap: configured, exact: true }
  const idle = { bytes: freemem(), bytesWithSwap: freemem(), exact: platform() === 'win32' }
  return (await linuxMemory(read)) ?? idle
}
