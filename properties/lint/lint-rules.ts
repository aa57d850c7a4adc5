import { basename, dirname, extname } from 'node:path'
import { type Allowed, allowed, type Rule, rules } from './refused-terms.js'

/** A file by its path in the repository, with forward slashes. */
export interface SourceFile {
  readonly path: string
  readonly text: string
}

/** A violation: file, line where there is one, and the message. */
export interface Problem {
  readonly path: string
  readonly line?: number
  readonly message: string
}

interface Line {
  readonly path: string
  readonly line: string
  readonly normalized: string
}

const MAX_FILES = 15
const typescript = /\.(tsx?|mjs)$/
const code = new Set(['.ts', '.tsx', '.js', '.mjs', '.cjs', '.cc', '.h', '.py'])
const floors = ['lib', 'models', 'processors', 'generation', 'properties']
/** AssemblyScript mirrors names of the C++ kernels, and has a compiler of its own. */
const assembly = 'lib/engines/wasm-kernels/assembly/'

/** `wayBack`, `way_back` and `way-back` as ` way back `: lower-case words with a space around each. */
const spaced = (line: string): string =>
  ` ${line
    .replace(/([a-z0-9])([A-Z])/g, '$1 $2')
    .replace(/([A-Z])([A-Z][a-z])/g, '$1 $2')
    .replace(/[^A-Za-z.]+/g, ' ')
    .replace(/[ .]*\.[ .]*/g, ' . ')
    .toLowerCase()} `

/** Declarations of an identifier, and uses in a list or a destructuring pattern: `const each`, `(each) =>`, `{ each }`. */
const declaration = (term: string): RegExp =>
  new RegExp(`\\b(?:const|let|readonly) ${term}\\b|[({[,] ?${term}(?= ?(?:[,)}\\]:]|\\?:|=>))|\\b${term} =>`)

const matches = ({ kind, term }: Rule, { path, line, normalized }: Line): boolean => {
  if (kind === 'words') return normalized.includes(` ${term} `)
  if (kind === 'identifier') return new RegExp(`\\b${term}\\b`).test(line)
  return typescript.test(path) && declaration(term).test(line)
}

const isAllowed = (uses: readonly Allowed[], term: string, path: string, context: string): boolean =>
  uses.some((use) => path.startsWith(use.path) && (use.term === '*' || use.term === term) && (use.line?.test(context) ?? true))

/** Refused terms in one file. The line before counts as context: a docstring with `@deprecated` covers the line below. */
export const vocabularyProblems = (
  { path, text }: SourceFile,
  { uses = allowed, terms = rules }: { readonly uses?: readonly Allowed[]; readonly terms?: readonly Rule[] } = {}
): readonly Problem[] => {
  const lines = text.split('\n')
  return lines.flatMap((line, i) => {
    const normalized = spaced(line)
    const context = `${lines[i - 1] ?? ''}\n${line}`
    return terms
      .filter((rule) => matches(rule, { path, line, normalized }) && !isAllowed(uses, rule.term, path, context))
      .map(({ term, use }) => ({ path, line: i + 1, message: `"${term}": write ${use}` }))
  })
}

/** Refused terms in file and folder names. */
export const nameProblems = ({ path }: SourceFile): readonly Problem[] =>
  vocabularyProblems({ path, text: path }).map(({ message }) => ({ path, message: `file name: ${message}` }))

const opening = /^(What|How|Why|Who|Where|Which|It|They|Those)\b/
const commentStart: Readonly<Record<string, RegExp>> = { '.py': /(?:^|\s)(?:#|""")\s*(\w.*)/ }
const defaultStart = /(?:\/\*\*?|(?<!:)\/\/)\s*(\w.*)/

/** Comments and docstrings that begin with "What", "How", "It" and the like instead of their subject. */
export const commentProblems = ({ path, text }: SourceFile): readonly Problem[] => {
  if (!code.has(extname(path)) || path.startsWith('properties/lint/')) return []
  const lines = text.split('\n')
  return lines.flatMap((line, i) => {
    const isFirst = /^\s*\/\*\*?\s*$/.test(lines[i - 1] ?? '')
    const text = isFirst ? line.replace(/^\s*\*\s*/, '') : ((commentStart[extname(path)] ?? defaultStart).exec(line)?.[1] ?? '')
    const word = opening.exec(text)?.[1]
    return word ? [{ path, line: i + 1, message: `a comment begins with "${word}": put the subject first` }] : []
  })
}

const grouped = (paths: readonly string[], key: (path: string) => string): ReadonlyMap<string, readonly string[]> => {
  const groups = new Map<string, string[]>()
  for (const path of paths) groups.set(key(path), [...(groups.get(key(path)) ?? []), path])
  return groups
}

const isSource = (path: string): boolean => code.has(extname(path)) && floors.includes(path.split('/')[0]!)

/** Folders with more than 15 source files side by side, tests included. */
export const folderProblems = (paths: readonly string[]): readonly Problem[] =>
  [...grouped(paths.filter(isSource), dirname)]
    .filter(([, files]) => files.length > MAX_FILES)
    .map(([path, files]) => ({ path, message: `${files.length} source files side by side; at most ${MAX_FILES}` }))

/** Source files that share a basename. Exempt: `index.ts`, `deprecated.ts` (old names of a floor's exports), tests (which mirror their source) and the wasm assembly. */
export const basenameProblems = (paths: readonly string[]): readonly Problem[] => {
  const counted = paths.filter(
    (path) =>
      isSource(path) &&
      !['index.ts', 'deprecated.ts'].includes(basename(path)) &&
      !/\.test\.ts$/.test(path) &&
      !path.startsWith(assembly)
  )
  return [...grouped(counted, (path) => basename(path))]
    .filter(([, files]) => files.length > 1)
    .map(([name, files]) => ({
      path: files[0]!,
      message: `${name} is also ${files.slice(1).join(', ')}: one meaning a file name`
    }))
}

/** Every problem of a set of files. */
export const lint = (files: readonly SourceFile[]): readonly Problem[] => {
  const paths = files.map(({ path }) => path)
  return [
    ...folderProblems(paths),
    ...basenameProblems(paths),
    ...files.flatMap((file) => [...nameProblems(file), ...vocabularyProblems(file), ...commentProblems(file)])
  ]
}
