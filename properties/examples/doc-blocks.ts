import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { checkpoint, circle, shapes, squares } from './demo-files.js'

// Blocks of README.md, CONTRIBUTING.md and docs/**/*.md as tests. The first word of a fence is the language; more words say how the
// block is tested: `ts` runs by itself, `ts continue` runs after the `ts` blocks before it on the page, `ts no-run REASON` and
// `sh no-run REASON` are not tested, `json KIND` and `jsonl KIND` are read by the reader of that kind.

const root = fileURLToPath(new URL('../..', import.meta.url))

/** A fenced block of a page. */
export interface Block {
  /** Page and line, as `docs/quick-start.md:12`. */
  readonly where: string
  readonly language: string
  /** The rest of the fence's first line. */
  readonly info: string
  readonly text: string
}

/** The fenced blocks of one page. */
export const blocksOf = (page: string, markdown: string): readonly Block[] => {
  const lines = markdown.split('\n')
  const blocks: Block[] = []
  for (let i = 0; i < lines.length; i++) {
    const fence = /^(\s*)```(\w+)\s*(.*)$/.exec(lines[i]!)
    if (!fence) continue
    const [, indent, language, info] = fence as unknown as [string, string, string, string]
    const end = lines.findIndex((line, j) => j > i && line.trim() === '```')
    const body = lines.slice(i + 1, end).map((line) => (line.startsWith(indent) ? line.slice(indent.length) : line))
    blocks.push({ where: `${page}:${i + 1}`, language, info: info.trim(), text: body.join('\n') })
    i = end
  }
  return blocks
}

const generated = /^(public|\.vitepress)\//

/** README.md, CONTRIBUTING.md and every page of docs/. */
export const pages = (): readonly string[] => [
  'README.md',
  'CONTRIBUTING.md',
  ...readdirSync(join(root, 'docs'), { recursive: true })
    .map((name) => `${name}`.replaceAll('\\', '/'))
    .filter((name) => name.endsWith('.md') && !generated.test(name))
    .map((name) => `docs/${name}`)
    .sort()
]

export const readBlocks = (): readonly Block[] =>
  pages().flatMap((page) => blocksOf(page, readFileSync(join(root, page), 'utf8')))

/** Source files of the package's entry points by import specifier, from `exports` of package.json. */
export const entryPoints = (): ReadonlyMap<string, string> => {
  const { name, exports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  const entries = Object.entries(exports as Record<string, string | { readonly types: string }>)
  return new Map(
    entries.flatMap(([subpath, target]) =>
      typeof target === 'string'
        ? []
        : [[`${name}${subpath.slice(1)}`, join(root, target.types.replace(/^\.\/dist\//, '').replace(/\.d\.ts$/, '.ts'))]]
    )
  )
}

const row = (image: string, question: string, answer: string): string =>
  JSON.stringify({
    image,
    conversations: [
      { from: 'human', value: `<image>\n${question}` },
      { from: 'gpt', value: answer }
    ]
  })

/** Files that blocks name, by the name in the block: images, a video, checkpoint folders and data files. */
export const substitutes = (folder: string): Readonly<Record<string, string>> => {
  mkdirSync(folder, { recursive: true })
  const data = join(folder, 'rows.jsonl')
  writeFileSync(
    data,
    `${row(shapes, 'How many triangles are there?', 'Two.')}\n${row(circle, 'How many circles are there?', 'One.')}\n`
  )
  return {
    'path/to/InternVL3-1B-hf': checkpoint,
    'OpenGVLab/InternVL3-1B-hf': checkpoint,
    'photo.jpg': shapes,
    'a.png': squares,
    'b.png': shapes,
    'clip.mp4': join(root, 'properties/processors/videos/demo.mp4'),
    'train.jsonl': data,
    'questions.jsonl': data
  }
}

/** The text with entry points and file names replaced; a path below `out/` is put into `folder`. */
export const substituted = (text: string, folder: string): string => {
  const files = substitutes(folder)
  const entries = entryPoints()
  return text.replace(/'([^'\n]*)'/g, (all, value: string) => {
    const target = entries.get(value) ?? (Object.hasOwn(files, value) ? files[value] : undefined)
    if (target !== undefined) return JSON.stringify(target)
    return value.startsWith('out/') ? JSON.stringify(join(folder, value)) : all
  })
}

/** A program made of a page's `ts` blocks: a block, with all `continue` blocks after it. */
export interface Program {
  readonly where: string
  readonly text: string
}

/** The programs of all pages, in order. */
export const programsOf = (blocks: readonly Block[]): readonly Program[] => {
  const programs: { where: string; text: string }[] = []
  for (const { where, language, info, text } of blocks) {
    if (language !== 'ts' || info.startsWith('no-run')) continue
    if (info === 'continue' && programs.length > 0) programs.at(-1)!.text += `\n${text}`
    else programs.push({ where, text })
  }
  return programs
}

/** Writes programs as modules into `folder`; their paths. */
export const writePrograms = (programs: readonly Program[], folder: string): readonly string[] =>
  programs.map(({ where, text }, i) => {
    const file = join(folder, `${i}-${where.replace(/[^\w]+/g, '-')}.mts`)
    writeFileSync(file, `${substituted(text, folder)}\nexport {}\n`)
    return file
  })

/** Path of a file relative to the repository. */
export const relativePath = (file: string): string => relative(root, file)

/** The words of a command line, quotes and `#` comments removed. */
const wordsOf = (line: string): readonly string[] =>
  [...line.matchAll(/"([^"]*)"|'([^']*)'|(#.*$)|(\S+)/g)]
    .filter(([, , , comment]) => comment === undefined)
    .map(([, double, single, , plain]) => double ?? single ?? plain!)

/** The commands of a `sh` block, one list of words each: split at `|`, `&&` and `;`, without assignments and redirections. */
export const commandsOf = (text: string): ReadonlyArray<readonly string[]> =>
  text
    .replace(/\\\n\s*/g, ' ')
    .split('\n')
    .flatMap((line) => {
      const commands: string[][] = [[]]
      for (const word of wordsOf(line)) {
        if (['|', '&&', ';'].includes(word)) commands.push([])
        else commands.at(-1)!.push(word)
      }
      return commands
    })
    .map((words) => {
      const start = words.findIndex((word) => !/^[A-Z_]+=/.test(word))
      const end = words.findIndex((word) => /^[<>]/.test(word))
      return words.slice(start < 0 ? words.length : start, end < 0 ? undefined : end)
    })
    .filter((words) => words.length > 0)
