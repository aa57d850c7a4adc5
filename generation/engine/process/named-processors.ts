import { isAbsolute } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { InternVLCheckpoint } from '../../checkpoint/load.js'
import type { LogitsProcessor } from '../../decoding/generation-options.js'
import type { NamedProcessor } from '../engine-types.js'

/**
 * Makes the logits processor of one request from its plain data. Throws a `RangeError` for wrong data. All answers of the request
 * share the processor: it depends on the ids that it is called with, not on the order of its calls.
 */
export type LogitsProcessorFactory = (internvl: InternVLCheckpoint, data: unknown) => LogitsProcessor | Promise<LogitsProcessor>

/** Imports the modules and gathers their `logitsProcessors`. Throws a `RangeError` for a module without them. */
export const importProcessors = async (modules: readonly string[]): Promise<Readonly<Record<string, LogitsProcessorFactory>>> => {
  const found = await Promise.all(
    modules.map(async (module) => {
      const { logitsProcessors } = await import(isAbsolute(module) ? pathToFileURL(module).href : module)
      if (typeof logitsProcessors !== 'object')
        throw new RangeError(`processorModules: ${module} exports no record logitsProcessors of processor factories`)
      return logitsProcessors as Record<string, LogitsProcessorFactory>
    })
  )
  return Object.assign({}, ...found)
}

/** The processors of a request. Throws a `RangeError` that names an unknown one. */
export const makeProcessors = (
  internvl: InternVLCheckpoint,
  factories: Readonly<Record<string, LogitsProcessorFactory>>,
  named: readonly NamedProcessor[] = []
): Promise<readonly LogitsProcessor[]> =>
  Promise.all(
    named.map(({ name, data }) => {
      const factory = Object.hasOwn(factories, name) ? factories[name] : undefined
      if (factory) return factory(internvl, data)
      const known = Object.keys(factories).join(', ') || 'none; add a module with processorModules'
      throw new RangeError(`logitsProcessors: no processor is called ${JSON.stringify(name)}; known: ${known}`)
    })
  )
