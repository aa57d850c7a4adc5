import { isAbsolute, resolve } from 'node:path'
import type { CreateEngineOptions } from './engine-types.js'
import { toPlainData } from './plain-data.js'
import type { ProcessOptions } from './protocol.js'

/** Options of `createEngine` with their defaults. */
export interface EngineSettings {
  readonly maxBatch: number
  readonly maxQueue: number
  readonly maxRestarts: number
  readonly restartBackoff: number
  readonly processOptions: ProcessOptions
}

const ranges = {
  maxBatch: [1, 256],
  maxQueue: [0, 1_000_000],
  prefixCacheBytes: [0, Number.MAX_SAFE_INTEGER],
  featureCacheBytes: [0, Number.MAX_SAFE_INTEGER],
  prefillChunkSize: [1, 1_000_000],
  maxRestarts: [0, 1_000_000],
  restartBackoff: [0, 3_600_000]
} as const satisfies { readonly [K in keyof CreateEngineOptions]?: readonly [min: number, max: number] }

const checkRanges = (options: CreateEngineOptions): void => {
  for (const [name, [min, max]] of Object.entries(ranges)) {
    const value = options[name as keyof typeof ranges]
    if (value !== undefined && !(Number.isSafeInteger(value) && value >= min && value <= max))
      throw new RangeError(`${name}: expected an integer from ${min} to ${max}, got ${value}`)
  }
}

/** A URL or an absolute path of a module; names of packages stay as they are. */
const moduleName = (module: string | URL): string => {
  const text = String(module)
  return text.startsWith('.') && !isAbsolute(text) ? resolve(text) : text
}

/** Checks the options and adds the defaults. Throws a `RangeError` that names the wrong option. */
export const engineSettings = (options: CreateEngineOptions): EngineSettings => {
  checkRanges(options)
  const { maxBatch = 8, maxQueue = 64, maxRestarts = 5, restartBackoff = 200 } = options
  const { onWarning: _onWarning, signal: _signal, processorModules = [], ...rest } = options
  const { value } = toPlainData(rest, 'options')
  return {
    ...{ maxBatch, maxQueue, maxRestarts, restartBackoff },
    processOptions: { ...value, processorModules: processorModules.map(moduleName) }
  }
}
