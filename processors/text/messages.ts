import * as E from 'fp-ts/lib/Either.js'
import { type Issue, type Issues, issue, whenValid } from '../../lib/error.js'
import type { ImageSource } from '../image/image.js'

export interface TextItem {
  readonly type: 'text'
  readonly text: string
}

/** An image item; its source has any of the names that Transformers accepts. */
export interface ImageItem {
  readonly type: 'image'
  readonly image?: ImageSource
  readonly url?: string | URL
  readonly path?: string
  readonly base64?: string
}

/** A video item: a file, or a list of frames in order. `fps` is the frame rate of frames without a file. */
export interface VideoItem {
  readonly type: 'video'
  readonly video?: VideoSource
  readonly frames?: readonly ImageSource[]
  readonly url?: string | URL
  readonly path?: string
  readonly fps?: number
}

/** Bytes of a video file. */
export type VideoBytes = Uint8Array | ArrayBuffer | Blob

/** A video file by path, http, https, file or data URL, or bytes; the path of a folder of frames; or a list of frames. */
export type VideoSource = string | URL | VideoBytes | readonly ImageSource[]

/** Whether a video is given as a list of frames. */
export const isFrames = (source: VideoSource): source is readonly ImageSource[] => Array.isArray(source)

export type ContentItem = TextItem | ImageItem | VideoItem

export const ROLES = ['system', 'developer', 'user', 'assistant', 'tool'] as const
export type Role = (typeof ROLES)[number]

/**
 * One turn; fields beyond `role` and `content` are passed to the chat template. The assistant's message with `tool_calls` may have
 * `content: null` or no content, as in Transformers.
 */
export interface Message {
  readonly role: Role
  readonly content: string | readonly ContentItem[]
  /** Calls of tools that the assistant made, as the chat template expects them. */
  readonly tool_calls?: readonly unknown[]
}

/** A conversation in Transformers' format. */
export type Messages = readonly Message[]

/** Content of a message as a list of items; empty for a message without content. */
export const itemsOf = ({ content }: { readonly content?: Message['content'] | null }): readonly ContentItem[] =>
  typeof content === 'string' ? [{ type: 'text', text: content }] : (content ?? [])

/** Source of an image item; undefined where the item has none. */
export const imageSourceOf = (item: ImageItem): ImageSource | undefined =>
  item.image ?? item.url ?? item.path ?? (item.base64 === undefined ? undefined : `data:image/*;base64,${item.base64}`)

/** Source of a video item; undefined where the item has none. */
export const videoSourceOf = (item: VideoItem): VideoSource | undefined => item.video ?? item.frames ?? item.url ?? item.path

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null

const checkItem = (item: unknown, where: string): readonly Issue[] => {
  const type = isRecord(item) ? item.type : undefined
  if (type === 'image' || type === 'video') return []
  if (type !== 'text')
    return [
      issue('Message', `${where}: expected an item of type "text", "image" or "video", got ${JSON.stringify(type) ?? 'none'}.`)
    ]
  return isRecord(item) && typeof item.text === 'string'
    ? []
    : [issue('Message', `${where}: a text item needs its text as a string.`)]
}

const checkMessage = (message: unknown, where: string): readonly Issue[] => {
  if (!isRecord(message)) return [issue('Message', `${where}: expected {role, content}.`)]
  const { role, content } = message
  const known = ROLES.some((r) => r === role)
  const unknown = known
    ? []
    : [issue('Message', `${where}: unknown role ${JSON.stringify(role)}; use one of ${ROLES.join(', ')}.`, { role })]
  const isToolCall = role === 'assistant' && Array.isArray(message.tool_calls) && (content ?? null) === null
  if (typeof content === 'string' || isToolCall) return unknown
  if (!Array.isArray(content)) return [...unknown, issue('Message', `${where}: content must be text or a list of items.`)]
  return [...unknown, ...content.flatMap((item, i) => checkItem(item, `${where}.content[${i}]`))]
}

// OpenAI's {type: "image_url", image_url: {url}} is an image item, in Transformers too
const fromOpenAI = (item: unknown): unknown => {
  if (!isRecord(item) || item.type !== 'image_url') return item
  const link = item.image_url
  return { type: 'image', url: isRecord(link) ? link.url : link }
}

const normalizeMessage = (message: unknown): unknown =>
  isRecord(message) && Array.isArray(message.content) ? { ...message, content: message.content.map(fromOpenAI) } : message

/** Validates the roles and items of a conversation and normalizes its items; gathers all errors. */
export const checkMessages = (messages: readonly unknown[], where = 'messages'): E.Either<Issues, Messages> => {
  if (!Array.isArray(messages))
    return E.left([issue('Message', `${where}: expected a list of messages, got ${typeof messages}.`)])
  const normal = messages.map(normalizeMessage)
  const issues = normal.flatMap((message, i) => checkMessage(message, `${where}[${i}]`))
  if (normal.length === 0) issues.push(issue('Message', `${where}: the conversation is empty.`))
  return whenValid(issues, () => normal as Messages) // checked above, item by item
}

/** An error for every user message without text other than white space, images or videos. */
export const checkNotEmpty = (messages: Messages, where = 'messages'): readonly Issue[] =>
  messages.flatMap((message, i) =>
    message.role === 'user' && itemsOf(message).every((item) => item.type === 'text' && item.text.trim() === '')
      ? [issue('EmptyMessage', `${where}[${i}]: the user's message is empty; ask something or show an image.`)]
      : []
  )
