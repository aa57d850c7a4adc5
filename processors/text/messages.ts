import * as E from 'fp-ts/lib/Either.js'
import { type Issue, type Issues, issue, valueText, whenValid } from '../../lib/error.js'
import { isRecord } from '../../lib/plain-object.js'
import type { ImageSource } from '../image/image.js'

export interface TextItem {
  readonly type: 'text'
  readonly text: string
}

/** An image item; a text under any of these names is a URL, a path, a data URL or base64, as in Transformers. */
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
/** A common role, or another word that the chat template knows, such as `function` or `observation`. */
export type Role = (typeof ROLES)[number] | (string & {})

/** A turn with content. */
export interface ContentMessage {
  readonly role: Role
  readonly content: string | readonly ContentItem[]
  /** Calls of tools that the assistant made, as the chat template expects them. */
  readonly tool_calls?: readonly unknown[]
}

/** A turn of the assistant that calls tools; the content may be null or absent, as in Transformers. */
export interface ToolCallMessage {
  readonly role: 'assistant'
  readonly content?: string | readonly ContentItem[] | null
  readonly tool_calls: readonly unknown[]
}

/** One turn; fields beyond `role`, `content` and `tool_calls` are passed to the chat template. */
export type Message = ContentMessage | ToolCallMessage

/** A conversation in Transformers' format. */
export type Messages = readonly Message[]

/** Content of a message as a list of items; empty for a message without content. */
export const itemsOf = ({ content }: Pick<Message, 'content'>): readonly ContentItem[] =>
  typeof content === 'string' ? [{ type: 'text', text: content }] : (content ?? [])

/** Source of an image item; undefined where the item has none. */
export const imageSourceOf = (item: ImageItem): ImageSource | undefined => item.image ?? item.url ?? item.path ?? item.base64

/** Source of a video item; undefined where the item has none. */
export const videoSourceOf = (item: VideoItem): VideoSource | undefined => item.video ?? item.frames ?? item.url ?? item.path

const isVideoSource = (value: unknown): boolean =>
  typeof value === 'string' || Array.isArray(value) || [URL, Uint8Array, ArrayBuffer, Blob].some((type) => value instanceof type)

const checkItem = (item: unknown, where: string): readonly Issue[] => {
  const type = isRecord(item) ? item.type : undefined
  if (type === 'image') return []
  if (type === 'video') {
    const source = videoSourceOf(item as unknown as VideoItem)
    return (source ?? undefined) === undefined || isVideoSource(source)
      ? []
      : [issue('Message', `${where}: a video is a path, a URL, bytes or a list of frames, got ${valueText(source)}.`)]
  }
  if (type !== 'text')
    return [
      issue(
        'Message',
        `${where}: expected an item of type "text", "image" or "video", got ${type === undefined ? 'none' : valueText(type)}.`
      )
    ]
  return isRecord(item) && typeof item.text === 'string'
    ? []
    : [issue('Message', `${where}: a text item needs its text as a string.`)]
}

/** A word of at most 64 letters, digits, `_`, `-` and `.`: templates compare roles as they are, so that a role must not contain a token. */
const ROLE = /^[\p{L}\p{N}_][\p{L}\p{N}_.-]{0,63}$/u

const checkRole = (role: unknown, where: string): readonly Issue[] =>
  typeof role === 'string' && ROLE.test(role)
    ? []
    : [
        issue(
          'Message',
          `${where}: role: expected ${ROLES.join(', ')}, or another word that the chat template knows, got ${valueText(role)}.`,
          { role }
        )
      ]

const checkMessage = (message: unknown, where: string): readonly Issue[] => {
  if (!isRecord(message)) return [issue('Message', `${where}: expected {role, content}.`)]
  const { role, content } = message
  const wrongRole = checkRole(role, where)
  const isToolCall = role === 'assistant' && Array.isArray(message.tool_calls) && (content ?? null) === null
  if (typeof content === 'string' || isToolCall) return wrongRole
  if (!Array.isArray(content)) return [...wrongRole, issue('Message', `${where}: content must be text or a list of items.`)]
  return [...wrongRole, ...content.flatMap((item, i) => checkItem(item, `${where}.content[${i}]`))]
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
