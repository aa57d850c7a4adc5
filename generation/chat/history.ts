import { readFile, stat } from 'node:fs/promises'
import { resolve } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { errorText, type Issues, issue, orThrow } from '../../lib/error.js'
import { encodePng } from '../../processors/image/draw.js'
import { type ImageSource, isBase64Image, readImage } from '../../processors/image/image.js'
import { type DownloadOptions, download } from '../../processors/media/fetch-media.js'
import {
  type ContentItem,
  checkMessages,
  imageSourceOf,
  type Message,
  type Messages,
  type VideoItem,
  type VideoSource
} from '../../processors/text/messages.js'

export interface SaveOptions {
  /** Save images and videos in files by their absolute path (the default), or with their bytes. */
  readonly images?: 'path' | 'content'
  /** @deprecated The name of `images` before 0.2. */
  readonly pictures?: 'path' | 'content'
}

/** Encoding of saved images: by path, or with their bytes. */
type ImageEncoding = Required<Pick<SaveOptions, 'images'>>

const isUrl = (source: ImageSource): source is string | URL => /^(https?|data):/i.test(sourceText(source))
const sourceText = (source: ImageSource): string => (typeof source === 'string' || source instanceof URL ? String(source) : '')

/** An image as an item of a message. An image behind a URL is downloaded once, here, because every turn reads the conversation. */
export const imageItem = async (source: ImageSource, options?: DownloadOptions): Promise<ContentItem> => {
  const text = sourceText(source)
  if (/^https?:/i.test(text)) return { type: 'image', url: text, image: await orThrow(download(text, options)) }
  if (isUrl(source)) return { type: 'image', url: text }
  return text === '' ? { type: 'image', image: source } : { type: 'image', path: text }
}

/** A video as an item of a message. A video behind a URL is downloaded once, here. */
export const videoItem = async (source: VideoSource, options?: DownloadOptions): Promise<ContentItem> => {
  if (Array.isArray(source)) return { type: 'video', frames: source }
  const text = sourceText(source as ImageSource)
  if (/^https?:/i.test(text)) return { type: 'video', url: text, video: await orThrow(download(text, options)) }
  return text === '' ? { type: 'video', video: source } : { type: 'video', path: text }
}

const dataUrl = (bytes: Uint8Array | ArrayBuffer): string =>
  `data:application/octet-stream;base64,${Buffer.from(bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes)).toString('base64')}`

/** An image as text: its path, URL or base64, or its bytes as a data URL. */
const imageText = async (source: ImageSource, { images }: ImageEncoding): Promise<string> => {
  const text = sourceText(source)
  if (text !== '') {
    if (isUrl(source) || isBase64Image(text)) return text
    const path = source instanceof URL || /^file:/i.test(text) ? text : resolve(text)
    return images === 'path' ? path : dataUrl(await readFile(/^file:/i.test(path) ? new URL(path) : path))
  }
  if (source instanceof Uint8Array || source instanceof ArrayBuffer) return dataUrl(source)
  if (source instanceof Blob) return dataUrl(await source.arrayBuffer())
  return dataUrl(await encodePng(await orThrow(readImage(source))))
}

const isFolder = (path: string): Promise<boolean> =>
  stat(path).then(
    (found) => found.isDirectory(),
    () => false
  )

const savedVideo = async ({ video, frames, url, path, ...rest }: VideoItem, options: ImageEncoding): Promise<VideoItem> => {
  const list = frames ?? (Array.isArray(video) ? (video as readonly ImageSource[]) : undefined)
  if (list) return { ...rest, frames: await Promise.all(list.map((frame) => imageText(frame, options))) }
  const source = (options.images === 'content' ? (video ?? url ?? path) : (url ?? video ?? path)) as ImageSource
  const isFrameFolder = await isFolder(sourceText(source))
  return { ...rest, path: await imageText(source, isFrameFolder ? { images: 'path' } : options) }
}

const savedItem = async (item: ContentItem, options: ImageEncoding): Promise<ContentItem> => {
  if (item.type === 'text') return item
  if (item.type === 'video') return savedVideo(item, options)
  const source = options.images === 'content' ? imageSourceOf(item) : (item.url ?? imageSourceOf(item))
  return source === undefined ? item : { type: 'image', url: await imageText(source, options) }
}

const savedMessage = async (message: Message, options: ImageEncoding): Promise<Message> =>
  typeof message.content === 'string' || !message.content
    ? message
    : { ...message, content: await Promise.all(message.content.map((item) => savedItem(item, options))) }

/** Serializes a conversation to JSON text, which `restoreHistory` parses. */
export const saveHistory = async (
  messages: Messages,
  { pictures, images = pictures ?? 'path' }: SaveOptions = {}
): Promise<string> =>
  `${JSON.stringify({ messages: await Promise.all(messages.map((m) => savedMessage(m, { images }))) }, null, 1)}\n`

/** Parses the JSON text of `saveHistory`. Errors: text that is not JSON, or not a conversation; error messages begin with `name`. */
export const restoreHistory = (json: string, name = 'history'): E.Either<Issues, Messages> => {
  const notAConversation = (why: string) =>
    E.left<Issues>([issue('History', `${name}: not a saved conversation (${why}).`, { name })])
  try {
    const messages = (JSON.parse(json) as { messages?: unknown } | null)?.messages
    if (!Array.isArray(messages)) return notAConversation('messages should be a list')
    return messages.length === 0 ? E.right([]) : checkMessages(messages, name)
  } catch (error) {
    return notAConversation(errorText(error).replace(/[\p{Cc}\ufffd]+/gu, '?')) // a parser quotes the bytes
  }
}
