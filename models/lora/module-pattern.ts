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

/** A regular expression that matches this path alone. */
export const escapedPath = (path: string): string => path.replaceAll('.', '\\.')

/** Whether JavaScript compiles a regular expression. */
export const isRegExp = (source: string): boolean => {
  try {
    return Boolean(new RegExp(source))
  } catch {
    return false
  }
}

/** Parts of regular expressions that Python has and JavaScript has not, or reads in another way. */
const pythonOnly = [
  /\(\?P[<=>][^>)]*[>)]?/, // named groups and references to them
  /\(\?[aiLmsux]+(?:-[imsx]+)?[:)]/, // flags
  /\(\?#[^)]*\)/, // comments
  /\(\?>/, // atomic groups
  /\(\?\([^)]*\)/, // conditions
  /\\[AZ]/, // start and end of the text
  /\\N\{[^}]*\}/,
  /[*+?}]\+/ // possessive quantifiers
]

/** The first part of a regular expression that only Python has; undefined if there is none. Escaped backslashes are skipped. */
export const pythonSyntax = (source: string): string | undefined => {
  const text = source.replaceAll(/\\\\|\\[^AZN]/g, '  ').replaceAll(/\[\^?\]?[^\]]*\]/g, (set) => ' '.repeat(set.length))
  const found = pythonOnly.map((syntax) => syntax.exec(text)).filter((match) => match !== null)
  return found.sort((a, b) => a.index - b.index)[0]?.[0]
}
