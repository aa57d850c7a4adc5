import { readFile } from 'node:fs/promises'
import { dirname, isAbsolute, join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { type Issue, type Issues, issue, whenValid } from '../../lib/error.js'
import type { ContentItem, Message, Messages } from '../../processors/text/messages.js'

/** One row of InternVL's jsonl: a conversation. */
export interface DatasetRow {
  readonly id: string
  readonly task: string
  /** All messages; those of the assistant are the expected answers. */
  readonly messages: Messages
  /** The last answer of Transformers, if the file has one. */
  readonly transformers?: string | undefined
  /** Preference row: the rejected answer. */
  readonly rejected?: string
  /** File and line number. */
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

const imageList = (value: unknown): readonly string[] | undefined => {
  if (value === undefined || value === null) return []
  const list = typeof value === 'string' ? [value] : value
  return Array.isArray(list) && list.every((name) => typeof name === 'string') ? list : undefined
}

/** A video is a path, or a list of frames; a row may have several videos. */
const videoList = (value: unknown): ReadonlyArray<string | readonly string[]> | undefined => {
  if (value === undefined || value === null) return []
  if (typeof value === 'string') return [value]
  if (!Array.isArray(value)) return undefined
  return value.every((frame) => typeof frame === 'string') ? [value] : value
}

interface Visuals {
  readonly images: string[]
  readonly videos: (string | readonly string[])[]
}

/** Content items of a text with `<image>` and `<video>` placeholders; each placeholder consumes the next image or video. */
const toItems = (text: string, { images, videos }: Visuals, where: string): ReadonlyArray<ContentItem | Issue> =>
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

/** The turns of a row; a preference row (`question`, `chosen`, `rejected`) ends with the chosen answer. Source: MMPR. */
const toTurns = ({ conversations, question, chosen, rejected }: Record<string, unknown>): readonly Turn[] | undefined => {
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

/** Parses one line of InternVL's jsonl; `where` names the line in errors, `folder` is the folder of its images. */
export const parseRow = (line: string, where: string, folder: string): E.Either<Issues, DatasetRow> => {
  const invalidRow = (message: string) => E.left<Issues, DatasetRow>([issue('DatasetRow', `${where}: ${message}`, { where })])
  let json: Record<string, unknown>
  try {
    json = JSON.parse(line)
  } catch (error) {
    return invalidRow(`not JSON (${(error as Error).message})`)
  }
  if (typeof json !== 'object' || json === null) return invalidRow('not a JSON object')
  const inFolder = (name: string) => (isAbsolute(name) || /^(https?|data):/.test(name) ? name : join(folder, name))
  const [images, videos] = [imageList(json.image), videoList(json.video)]
  if (!images || !videos) return invalidRow('image should be a path or a list of paths, video a path or a list of frames')
  const sourceTurns = toTurns(json)
  if (!sourceTurns)
    return invalidRow('expected conversations, a list of {from, value}, or the strings question, chosen and rejected')
  const remaining: Visuals = {
    images: images.map(inFolder),
    videos: videos.map((video) => (typeof video === 'string' ? inFolder(video) : video.map(inFolder)))
  }
  const turns = sourceTurns.map(({ from, value }) => ({
    role: roles[from],
    content: toItems(value, remaining, where),
    speakerIssues: roles[from] ? [] : [issue('DatasetRow', `${where}: unknown speaker ${JSON.stringify(from)}`, { where })]
  }))
  const issues = turns.flatMap(({ content, speakerIssues }) => [...speakerIssues, ...content.filter(isIssue)])
  const unused = remaining.images.length + remaining.videos.length
  const unusedIssues =
    issues.length === 0 && unused > 0
      ? [issue('DatasetRow', `${where}: ${unused} images or videos have no placeholder`, { where })]
      : []
  return whenValid([...issues, ...unusedIssues], () => ({
    id: String(json.id ?? where),
    task: typeof json.task === 'string' ? json.task : 'all',
    messages: turns.map(({ role, content }) => ({ role, content })) as Messages,
    where,
    ...(typeof json.transformers === 'string' ? { transformers: json.transformers } : {}),
    ...(typeof json.rejected === 'string' ? { rejected: json.rejected } : {})
  }))
}

/** The valid rows of a file, and the issues of all other rows with file and line number. */
export interface EvalRows {
  readonly rows: readonly DatasetRow[]
  readonly issues: readonly Issue[]
}

/** Reads the valid rows of InternVL's jsonl; image paths are relative to `folder`, by default the folder of the file. */
export const readRows =
  (file: string, folder: string = dirname(file)): TaskEither<Issues, EvalRows> =>
  async () => {
    let text: string
    try {
      text = await readFile(file, 'utf8')
    } catch (error) {
      return E.left([
        issue('DatasetMissing', `${file}: cannot be read (${(error as NodeJS.ErrnoException).code})`, { path: file })
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
 * the file. Errors: every invalid line with file and line number, and `DatasetEmpty` for a file without rows.
 */
export const readDataset =
  (file: string): TaskEither<Issues, readonly DatasetRow[]> =>
  async () =>
    E.chain(({ rows, issues }: EvalRows) => {
      const isEmpty = rows.length === 0 && issues.length === 0
      const empty = issue('DatasetEmpty', `${file}: no rows; give a jsonl file with one conversation a line`, { path: file })
      return whenValid(isEmpty ? [empty] : issues, () => rows)
    })(await readRows(file)())
