import { readdir } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'

const hasEscapes = process.platform !== 'win32' // on Windows a backslash separates folders

const unescaped = (text: string): string => (hasEscapes ? text.replace(/\\(.)/g, '$1') : text)
const escaped = (text: string): string => (hasEscapes ? text.replace(/[\s\\'"]/g, '\\$&') : text)
const expanded = (path: string): string => (path.startsWith('~/') ? join(homedir(), path.slice(2)) : path)

/** The path that a user typed as in a shell: in quotes, or with escapes as in `my\ photo.jpg`; `~/` is the home folder. */
export const typedPath = (typed: string): string => {
  const quoted = /^(['"])(.*)\1$/.exec(typed)?.[2]
  return expanded(quoted ?? unescaped(typed))
}

/** Completions of a path that is typed in part, each as the user would type the path; folders end with a slash. */
export const completePath = async (typed: string): Promise<readonly string[]> => {
  const quote = /^['"]/.exec(typed)?.[0] ?? ''
  const write = quote === '' ? escaped : (text: string) => text
  const bare = quote === '' ? unescaped(typed) : typed.slice(1)
  const folder = bare.slice(0, bare.lastIndexOf('/') + 1)
  const name = bare.slice(folder.length)
  const entries = await readdir(expanded(folder) || '.', { withFileTypes: true }).catch(() => [])
  return entries
    .filter((entry) => entry.name.startsWith(name) && (name !== '' || !entry.name.startsWith('.')))
    .map((entry) => `${quote}${write(folder + entry.name)}${entry.isDirectory() ? '/' : quote}`)
    .sort()
}
