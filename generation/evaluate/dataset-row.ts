import { isAbsolute, join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as t from 'io-ts'
import { type Issue, type Issues, invalid, issue, whenValid } from '../../lib/error.js'
import { isRecord } from '../../lib/plain-object.js'
import { isBase64Image } from '../../processors/image/image.js'
import { type ContentItem, type Messages, ROLES, type Role } from '../../processors/text/messages.js'
import { type Choices, choicesOf } from './metrics/multiple-choice.js'
import { answerList, firstAnswer } from './row-answers.js'

/** One row of a dataset: a conversation. */
export interface DatasetRow {
  /** The `id` of the row where that is a string or a number, else `where`. */
  readonly id: string
  readonly task: string
  /** All messages; those of the assistant are the expected answers. */
  readonly messages: Messages
  /** The last answer of Transformers, if the file has one. */
  readonly transformers?: string | undefined
  /** All correct answers, or the answers of several people; the last answer of `messages` where a row has no list. */
  readonly answers?: readonly string[]
  /** Options of a multiple-choice question. */
  readonly choices?: Choices
  /** Name of the metric that scores the row. */
  readonly metric?: string
  /** Preference row: the rejected answer. */
  readonly rejected?: string
  /** File and line number. */
  readonly where?: string
}

/** An image or video item without a source: the next image or video of the row takes its position. */
interface Placeholder {
  readonly placeholder: 'image' | 'video'
}

/** A message before images and videos are assigned to its placeholders. */
interface Turn {
  readonly role: string
  readonly items: ReadonlyArray<ContentItem | Placeholder>
  /** Further fields of a Hugging Face message, such as `tool_calls`. */
  readonly fields: object
}

type Json = Readonly<Record<string, unknown>>
type Video = string | readonly string[]

interface Media {
  readonly images: readonly string[]
  readonly videos: readonly Video[]
}

const isPlaceholder = (item: ContentItem | Placeholder): item is Placeholder => 'placeholder' in item

const roles: Readonly<Record<string, Role>> = {
  ...{ human: 'user', gpt: 'assistant' },
  ...Object.fromEntries(ROLES.map((role) => [role, role]))
}

/** A path, or `{ path }` as the Hugging Face `datasets` library writes images. */
const pathOf = (value: unknown): unknown => (isRecord(value) ? value.path : value)

/** `image` or `images`: a path or a list of paths; an empty string means no image. */
const imageList = ({ image, images }: Json): readonly string[] | undefined => {
  const value = image ?? images ?? []
  if (value === '') return []
  const list = [value].flat().map(pathOf)
  return t.array(t.string).is(list) ? list : undefined
}

const listOfVideos = t.array(t.union([t.string, t.array(t.string)]))

/**
 * `video`: a path, or the list of the frames of one video, or a list of such lists. `videos`: a list of paths and of lists of frames. An
 * empty string means no video.
 */
const videoList = ({ video, videos }: Json): readonly Video[] | undefined => {
  const value = video ?? videos ?? []
  if (value === '') return []
  const list = typeof value === 'string' ? [value] : value
  if (!listOfVideos.is(list)) return undefined
  const isFrameList = video !== undefined && list.length > 0 && t.array(t.string).is(list) && typeof value !== 'string'
  return isFrameList ? [list] : list
}

/** Splits a text at the placeholders `<image>` and `<video>`, which include a following line break. */
const splitPlaceholders = (text: string): Turn['items'] =>
  text
    .split(/(<image>\n?|<video>\n?)/)
    .filter((part) => part !== '')
    .map((part) => {
      const kind = /^<(image|video)>/.exec(part)?.[1]
      return kind === undefined ? { type: 'text', text: part } : { placeholder: kind as 'image' | 'video' }
    })

const sources = ['image', 'video', 'frames', 'url', 'path', 'base64'] as const

/** An item of a content list. An image or video without a source is a placeholder; paths are relative to the folder of the row. */
const itemOf = (item: Json, resolve: (path: string) => string): ContentItem | Placeholder => {
  if (item.type !== 'image' && item.type !== 'video') return item as unknown as ContentItem
  const given = sources.filter((name) => item[name] !== undefined && item[name] !== null)
  if (given.length === 0) return { placeholder: item.type }
  const resolved = given
    .filter((name) => name !== 'base64')
    .map((name) => {
      const value = item[name]
      return [name, typeof value === 'string' ? resolve(value) : t.array(t.string).is(value) ? value.map(resolve) : value]
    })
  return { ...item, ...Object.fromEntries(resolved) } as ContentItem
}

const isTextItem = (item: unknown): boolean => isRecord(item) && item.type === 'text' && typeof item.text === 'string'
const isItem = (item: unknown): item is Json =>
  isTextItem(item) || (isRecord(item) && (item.type === 'image' || item.type === 'video'))

/** A turn of InternVL (`from`, `value`) or a message of Hugging Face (`role`, `content`); undefined for anything else. */
const turnOf = (value: unknown, resolve: (path: string) => string): Turn | undefined => {
  if (!isRecord(value)) return undefined
  const { from, value: text, role = from, content, ...others } = value
  const given = content ?? text ?? ''
  const fields = from === undefined ? others : {}
  if (typeof role !== 'string') return undefined
  if (typeof given === 'string') return { role, items: splitPlaceholders(given), fields }
  if (!Array.isArray(given) || !given.every(isItem)) return undefined
  return { role, items: given.map((item) => itemOf(item, resolve)), fields }
}

/** A conversation: a list of turns, or a text that is one turn of `role`. */
const turnsOf = (value: unknown, role: string, resolve: (path: string) => string): readonly Turn[] | undefined => {
  const list = typeof value === 'string' ? [{ role, content: value }] : value
  if (!Array.isArray(list)) return undefined
  const turns = list.map((turn) => turnOf(turn, resolve))
  return turns.every((turn) => turn !== undefined) ? turns : undefined
}

const textOf = ({ items }: Turn): string => items.map((item) => ('text' in item ? item.text : '')).join('')

/** The conversation of a row, and the rejected answer of a preference row. */
interface Conversation {
  readonly turns: readonly Turn[]
  readonly rejected?: string
}

const expected =
  'expected conversations (a list of {from, value}), messages (a list of {role, content}), question and answer, or prompt (or question), chosen and rejected'

/**
 * A preference row. With a prompt, chosen and rejected are the answer as a text or as a list of one message; without a prompt they are
 * whole conversations that differ in the last message. Source: MMPR (OpenGVLab), TRL's dataset formats.
 */
const preferenceConversation = (json: Json, resolve: (path: string) => string): E.Either<string, Conversation> => {
  const prompt = json.prompt ?? json.question
  const before = prompt === undefined ? [] : turnsOf(prompt, 'user', resolve)
  const chosen = turnsOf(json.chosen, 'assistant', resolve)
  const rejected = turnsOf(json.rejected, 'assistant', resolve)
  if (!before || !chosen || !rejected) return E.left(expected)
  const isSame = JSON.stringify(chosen.slice(0, -1)) === JSON.stringify(rejected.slice(0, -1))
  const hasPrompt = prompt !== undefined || chosen.length > 1
  const last = rejected.at(-1)
  if (!hasPrompt || !isSame || last === undefined || chosen.length === 0)
    return E.left('chosen and rejected should be answers to the same prompt, with one message each after the prompt')
  return E.right({ turns: [...before, ...chosen], rejected: textOf(last) })
}

const conversationOf = (json: Json, resolve: (path: string) => string): E.Either<string, Conversation> => {
  const given = json.conversations ?? json.messages
  if (given === undefined && json.rejected !== undefined) return preferenceConversation(json, resolve)
  const prompt = turnsOf(json.prompt ?? json.question, 'user', resolve)
  const completion = turnsOf(json.completion ?? firstAnswer(json), 'assistant', resolve)
  const turns = given === undefined ? prompt && completion && [...prompt, ...completion] : turnsOf(given, '', resolve)
  if (!turns) return E.left(expected)
  return E.right({ turns, ...(typeof json.rejected === 'string' ? { rejected: json.rejected } : {}) })
}

/**
 * Puts images and videos without any placeholder before the first message of the user. Source: `multi_modal_get_item`, `video_get_item`
 * (OpenGVLab, internvl_chat_finetune.py); `prepare_multimodal_messages` (TRL).
 */
const withPlaceholders = (turns: readonly Turn[], { images, videos }: Media): readonly Turn[] => {
  const has = (kind: Placeholder['placeholder']) =>
    turns.some(({ items }) => items.some((item) => isPlaceholder(item) && item.placeholder === kind))
  const missing: readonly Placeholder[] = [
    ...(has('image') ? [] : images.map(() => ({ placeholder: 'image' }) as const)),
    ...(has('video') ? [] : videos.map(() => ({ placeholder: 'video' }) as const))
  ]
  const first = turns.findIndex(({ role }) => roles[role] === 'user')
  return turns.map((turn, i) => (i === first ? { ...turn, items: [...missing, ...turn.items] } : turn))
}

/** Assigns images and videos to placeholders in order. Issues: unknown roles; placeholders and images or videos of different number. */
const assignMedia = (turns: readonly Turn[], media: Media, where: string): E.Either<Issues, Messages> => {
  const wrong = (message: string): Issue => issue('DatasetRow', `${where}: ${message}`, { where })
  const [images, videos] = [[...media.images], [...media.videos]]
  const issues: Issue[] = []
  const assigned = (item: ContentItem | Placeholder): readonly ContentItem[] => {
    if (!isPlaceholder(item)) return [item]
    const kind = item.placeholder
    const source = kind === 'image' ? images.shift() : videos.shift()
    if (source === undefined) issues.push(wrong(`more <${kind}> placeholders than ${kind}s`))
    if (source === undefined) return []
    return [typeof source === 'string' ? { type: kind, path: source } : { type: 'video', frames: source }]
  }
  const messages = turns.map(({ role, items, fields }) => {
    if (!Object.hasOwn(roles, role)) issues.push(wrong(`unknown speaker ${JSON.stringify(role)}`))
    return { ...fields, role: roles[role]!, content: items.flatMap(assigned) }
  })
  const unused = images.length + videos.length
  if (issues.length === 0 && unused > 0) issues.push(wrong(`${unused} images or videos have no placeholder`))
  return whenValid(issues, () => messages)
}

/** Reads a row from JSON: a row of InternVL, LLaVA, Hugging Face `messages` or TRL. `folder` is the folder of its images and videos. */
export const rowFromJson = (json: unknown, where: string, folder: string): E.Either<Issues, DatasetRow> => {
  const invalidRow = (message: string) => invalid('DatasetRow', `${where}: ${message}`, { where })
  if (!isRecord(json)) return invalidRow('not a JSON object')
  const resolve = (path: string) =>
    isAbsolute(path) || /^(https?|data|file):/.test(path) || isBase64Image(path) ? path : join(folder, path)
  const [images, videos] = [imageList(json), videoList(json)]
  if (!images || !videos) return invalidRow('image should be a path or a list of paths, video a path or a list of frames')
  const answers = answerList(json)
  if (!answers) return invalidRow('answers should be a list of texts, or of objects with the text as "answer"')
  const given = json.options ?? json.choices
  const choices = choicesOf(given)
  if (!choices && typeof given === 'object' && given !== null && Object.keys(given).length > 0)
    return invalidRow('options should be at most 26 texts or numbers, as a list or by the letters A to Z')
  const media = {
    images: images.map(resolve),
    videos: videos.map((video) => (typeof video === 'string' ? resolve(video) : video.map(resolve)))
  }
  return pipe(
    conversationOf(json, resolve),
    E.mapLeft((message): Issues => [issue('DatasetRow', `${where}: ${message}`, { where })]),
    E.chain(({ turns, rejected }) =>
      pipe(
        assignMedia(withPlaceholders(turns, media), media, where),
        E.map(
          (messages): DatasetRow => ({
            id: typeof json.id === 'string' || typeof json.id === 'number' ? String(json.id) : where,
            task: typeof json.task === 'string' ? json.task : 'all',
            messages,
            where,
            ...(answers.length > 0 ? { answers } : {}),
            ...(choices ? { choices } : {}),
            ...(typeof json.metric === 'string' ? { metric: json.metric } : {}),
            ...(typeof json.transformers === 'string' ? { transformers: json.transformers } : {}),
            ...(rejected === undefined ? {} : { rejected })
          })
        )
      )
    )
  )
}
