import { createContext, Script } from 'node:vm'
import { InternVLError, issue } from '../../lib/error.js'

const context = createContext({ source: '', text: '' })
const script = new Script('new RegExp(source).test(text)')
const milliseconds = 1000

/**
 * Whether a regular expression of an adapter_config.json matches a module path. Throws an `InternVLError` for an expression that takes more
 * than a second, such as `(.*)*x`, whose time grows exponentially with the length of the path.
 */
export const matchesModule = (source: string, path: string): boolean => {
  Object.assign(context, { source, text: path })
  try {
    return script.runInContext(context, { timeout: milliseconds })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw error
    const message = `adapter_config.json: the regular expression ${JSON.stringify(source)} takes more than ${milliseconds / 1000} s for ${path}; use one without nested repetitions`
    throw new InternVLError([issue('AdapterConfig', message, { pattern: source, path })])
  }
}
