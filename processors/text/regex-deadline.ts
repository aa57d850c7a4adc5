import { createContext, Script } from 'node:vm'
import { InternVLError, issue } from '../../lib/error.js'

/** Splitting patterns of the published tokenizers, whose time grows with the length of the text alone. Source: Qwen2, Qwen3; Llama 3. */
const KNOWN = new Set([
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
])

/** Whether a part of tokenizer.json has a regular expression that is not one of the published tokenizers'. */
export const hasUnknownRegex = (part: unknown): boolean => {
  if (typeof part !== 'object' || part === null) return false
  return Object.entries(part).some(([key, value]) =>
    key === 'Regex' ? typeof value === 'string' && !KNOWN.has(value) : hasUnknownRegex(value)
  )
}

const SECONDS = 2
const context = createContext({ run: undefined })
const script = new Script('run()')

/** Runs a part of a tokenizer: as it is, or with a deadline. */
export type RunPart = <A>(run: () => A) => A

export const withoutDeadline: RunPart = (run) => run()

/**
 * Runs a function with a deadline of two seconds. Throws an `InternVLError` after the deadline: a regular expression such as `(\w+\s?)+x` takes
 * time that grows exponentially with the length of the text.
 */
export const withDeadline: RunPart = (run) => {
  context.run = run
  try {
    return script.runInContext(context, { timeout: SECONDS * 1000 })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw error
    const message = `tokenizer.json: a regular expression takes more than ${SECONDS} s for a part of the text; use one without nested repetitions.`
    throw new InternVLError([issue('Tokenizer', message)])
  }
}
