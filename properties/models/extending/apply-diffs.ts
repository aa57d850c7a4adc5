import { existsSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'

/** The diffs of one file in a Markdown page: its path, and the old and new lines of each hunk. */
interface FileDiff {
  readonly path: string
  readonly isNew: boolean
  readonly hunks: ReadonlyArray<{ readonly before: string; readonly after: string }>
}

const side = (lines: readonly string[], sign: '+' | '-'): string =>
  lines.flatMap((line) => (line.startsWith(sign) || line.startsWith(' ') ? [line.slice(1)] : [])).join('\n')

const parseDiff = (text: string): FileDiff => {
  const [from = '', to = '', ...lines] = text.trimEnd().split('\n')
  const hunks = lines
    .join('\n')
    .split(/^@@.*\n/m)
    .slice(1)
  return {
    path: to.replace(/^\+\+\+ b\//, ''),
    isNew: from === '--- /dev/null',
    hunks: hunks.map((hunk) => hunk.trimEnd().split('\n')).map((hunk) => ({ before: side(hunk, '-'), after: side(hunk, '+') }))
  }
}

/** The diffs of a Markdown page, in order. */
export const diffsOf = (markdown: string): readonly FileDiff[] =>
  [...markdown.matchAll(/^```diff\n(.*?)^```$/gms)].map(([, text = '']) => parseDiff(text))

/** Applies a diff to the files under a folder. Throws where the old lines of a hunk are not in the file exactly once. */
export const applyDiff = async (folder: string, { path, isNew, hunks }: FileDiff): Promise<void> => {
  const file = join(folder, path)
  if (isNew === existsSync(file)) throw new Error(`${path}: ${isNew ? 'the file exists already' : 'there is no such file'}`)
  let source = isNew ? '' : await readFile(file, 'utf8')
  for (const { before, after } of hunks) {
    const parts = isNew ? ['', '\n'] : source.split(before)
    if (parts.length !== 2) throw new Error(`${path}: these lines are in the file ${parts.length - 1} times:\n${before}`)
    source = parts.join(after)
  }
  await mkdir(dirname(file), { recursive: true })
  await writeFile(file, source)
}
