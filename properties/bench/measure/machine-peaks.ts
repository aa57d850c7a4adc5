import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, statSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { workshop } from '../peers/python.js'

/** Limits of this machine with all threads: bytes a second read from memory, operations a second by type. */
export interface MachinePeaks {
  readonly threads: number
  readonly bytesPerSecond: number
  readonly float32: number
  /** Products of int16 (`vpmaddwd`) and of int8 (`vpdpbusd`), where the processor has them. */
  readonly int16?: number
  readonly int8?: number
}

const source = fileURLToPath(new URL('machine_peaks.cc', import.meta.url))

/** The program that measures, compiled on first use. Throws a `RangeError` with the compiler's message if it cannot be compiled. */
const program = (): string => {
  const file = join(workshop, 'machine_peaks')
  if (existsSync(file) && statSync(file).mtimeMs > statSync(source).mtimeMs) return file
  mkdirSync(workshop, { recursive: true })
  const target = process.arch === 'arm64' ? '-mcpu=native' : '-march=native'
  const compiler = process.env.CXX ?? 'g++'
  const { status, stderr, error } = spawnSync(compiler, ['-O3', target, '-pthread', source, '-o', file], { encoding: 'utf8' })
  if (status !== 0) throw new RangeError(`--roofline: ${compiler} cannot compile ${source}: ${error?.message ?? stderr}`)
  return file
}

/** Measures the limits of this machine in some seconds. */
export const machinePeaks = (threads: number = availableParallelism()): MachinePeaks => {
  const { stdout } = spawnSync(program(), [`${threads}`], { encoding: 'utf8' })
  return { threads, ...(JSON.parse(stdout) as Omit<MachinePeaks, 'threads'>) }
}
