import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { extname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { lint, type SourceFile } from './lint-rules.js'

// Rules that biome does not have: vocabulary, size of folders, file names. `tsx properties/lint/lint-command.ts [PATH…]` reports only
// problems under these paths. Import directions and cycles are rules of biome.json.

const root = fileURLToPath(new URL('../..', import.meta.url))
const linted = new Set(['.ts', '.tsx', '.js', '.mjs', '.cjs', '.cc', '.h', '.py', '.md'])

/** Tracked and new files of the repository, except ignored ones. */
const repositoryFiles = (): readonly SourceFile[] =>
  execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], { cwd: root, encoding: 'utf8' })
    .split('\n')
    .filter((path) => linted.has(extname(path)) && existsSync(join(root, path)))
    .map((path) => ({ path, text: readFileSync(join(root, path), 'utf8') }))

const only = process.argv.slice(2)
const problems = lint(repositoryFiles()).filter(({ path }) => only.length === 0 || only.some((start) => path.startsWith(start)))
for (const { path, line, message } of problems) console.log(`${path}${line === undefined ? '' : `:${line}`}: ${message}`)
process.stderr.write(`vocabulary and folders: ${problems.length} problem${problems.length === 1 ? '' : 's'}\n`)
process.exitCode = problems.length > 0 ? 1 : 0
