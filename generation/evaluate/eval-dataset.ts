import { readFile } from 'node:fs/promises'
import { dirname, isAbsolute, join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { type Issue, type Issues, issue, whenValid } from '../../lib/error.js'
import type { ContentItem, Message, Messages } from '../../processors/text/messages.js'

/** One conversation of InternVL's jsonl: turns that a person and the model take in order. */
export interface DatasetRow {
  readonly id: string
  readonly task: string
  /** Every turn; the model's are the right answers. */
  readonly messages: Messages
  /** What Transformers answered last, where the file says. */
  readonly transformers?: string | undefined
  /** Of a preference: a worse answer than the last. */
  readonly rejected?: string
  /** File and line. */
  readonly where?: string
}

interface Turn {
  readonly from: string
  readonly value: string
}

const roles: Readonly<Record<string, Message['role']>> = {
  human: 'user',
  user: 'user',
  gpt: 'assistant',
  assistant: 'assistant',
  system: 'system'
}

const isTurn = (x: unknown): x is Turn =>
  typeof x === 'object' && x !== null && typeof (x as Turn).from === 'string' && typeof (x as Turn).value === 'string'

const names = (value: unknown): readonly string[] | undefined => {
  if (value === undefined || value === null) return []
  const list = typeof value === 'string' ? [value] : value
  return Array.isArray(list) && list.every((name) => typeof name === 'string') ? list : undefined
}

/** A film is a path, or the list of its frames; a row may hold several. */
const films = (value: unknown): ReadonlyArray<string | readonly string[]> | undefined => {
  if (value === undefined || value === null) return []
  if (typeof value === 'string') return [value]
  if (!Array.isArray(value)) return undefined
  return value.every((frame) => typeof frame === 'string') ? [value] : value
}

interface Visuals {
  readonly images: string[]
  readonly videos: (string | readonly string[])[]
}

/** Text with `<image>` and `<video>` placeholders as items; each placeholder takes the next picture or film. */
const itemsOf = (text: string, { images, videos }: Visuals, where: string): ReadonlyArray<ContentItem | Issue> =>
  text
    .split(/(<image>\n?|<video>\n?)/)
    .filter((part) => part !== '')
    .map((part) => {
      const kind = /^<(image|video)>/.exec(part)?.[1]
      if (kind === undefined) return { type: 'text', text: part }
      const next = kind === 'image' ? images.shift() : videos.shift()
      if (next === undefined) return issue('DatasetRow', `${where}: more <${kind}> placeholders than ${kind}s`, { where })
      if (kind === 'image') return { type: 'image', path: next as string }
      return typeof next === 'string' ? { type: 'video', path: next } : { type: 'video', frames: next }
    })

const isIssue = (x: object): x is Issue => '_tag' in x

/** A preference (`question`, `chosen`, `rejected`) as a conversation that ends with the chosen answer. Source: MMPR. */
const turnsOf = ({ conversations, question, chosen, rejected }: Record<string, unknown>): readonly Turn[] | undefined => {
  const turns =
    conversations ??
    (typeof rejected === 'string'
      ? [
          { from: 'human', value: question },
          { from: 'gpt', value: chosen }
        ]
      : undefined)
  return Array.isArray(turns) && turns.every(isTurn) ? turns : undefined
}

/** One line of InternVL's jsonl; `where` names it in errors, `folder` is where its pictures are. */
export const parseRow = (line: string, where: string, folder: string): E.Either<Issues, DatasetRow> => {
  const wrong = (says: string) => E.left<Issues, DatasetRow>([issue('DatasetRow', `${where}: ${says}`, { where })])
  let json: Record<string, unknown>
  try {
    json = JSON.parse(line)
  } catch (error) {
    return wrong(`not JSON (${(error as Error).message})`)
  }
  if (typeof json !== 'object' || json === null) return wrong('not a JSON object')
  const at = (name: string) => (isAbsolute(name) || /^(https?|data):/.test(name) ? name : join(folder, name))
  const [images, videos] = [names(json.image), films(json.video)]
  if (!images || !videos) return wrong('image must be a name or a list of names, video a path or a list of frames')
  const said = turnsOf(json)
  if (!said) return wrong('conversations must be a list of {from, value}, or question, chosen and rejected be texts')
  const left: Visuals = {
    images: images.map(at),
    videos: videos.map((film) => (typeof film === 'string' ? at(film) : film.map(at)))
  }
  const turns = said.map(({ from, value }) => ({
    role: roles[from],
    content: itemsOf(value, left, where),
    speaker: roles[from] ? [] : [issue('DatasetRow', `${where}: unknown speaker ${JSON.stringify(from)}`, { where })]
  }))
  const issues = turns.flatMap(({ content, speaker }) => [...speaker, ...content.filter(isIssue)])
  const unused = left.images.length + left.videos.length
  const surplus =
    issues.length === 0 && unused > 0
      ? [issue('DatasetRow', `${where}: ${unused} pictures or films have no placeholder`, { where })]
      : []
  return whenValid([...issues, ...surplus], () => ({
    id: String(json.id ?? where),
    task: typeof json.task === 'string' ? json.task : 'all',
    messages: turns.map(({ role, content }) => ({ role, content })) as Messages,
    where,
    ...(typeof json.transformers === 'string' ? { transformers: json.transformers } : {}),
    ...(typeof json.rejected === 'string' ? { rejected: json.rejected } : {})
  }))
}

/** What of a file is sound, and what is wrong with the rest, by file and line. */
export interface ReadRows {
  readonly rows: readonly DatasetRow[]
  readonly issues: readonly Issue[]
}

/** Reads InternVL's jsonl as far as it is sound; pictures are beside the file unless `folder` says otherwise. */
export const readRows =
  (file: string, folder: string = dirname(file)): TaskEither<Issues, ReadRows> =>
  async () => {
    let text: string
    try {
      text = await readFile(file, 'utf8')
    } catch (error) {
      return E.left([
        issue('DatasetMissing', `${file}: it can't be read (${(error as NodeJS.ErrnoException).code})`, { path: file })
      ])
    }
    const lines = text.split('\n').map((line, i) => ({ line, where: `${file}:${i + 1}` }))
    const rows = lines.filter(({ line }) => line.trim() !== '').map(({ line, where }) => parseRow(line, where, folder))
    return E.right({
      rows: rows.flatMap((row) => (E.isRight(row) ? [row.right] : [])),
      issues: rows.flatMap((row) => (E.isLeft(row) ? row.left : []))
    })
  }

/**
 * Reads InternVL's jsonl (`image`, `video`, `conversations` with `<image>` and `<video>` placeholders); paths are relative to
 * the file. Every bad line is reported by file and number.
 */
export const readDataset =
  (file: string): TaskEither<Issues, readonly DatasetRow[]> =>
  async () =>
    E.chain(({ rows, issues }: ReadRows) => whenValid(issues, () => rows))(await readRows(file)())
