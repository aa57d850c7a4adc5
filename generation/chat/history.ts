import { readFile, stat } from 'node:fs/promises'
import { resolve } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { type Issues, issue, orThrow } from '../../lib/error.js'
import { encodePng } from '../../processors/image/draw.js'
import { type ImageSource, readImage } from '../../processors/image/image.js'
import { type DownloadOptions, download } from '../../processors/media/fetch-media.js'
import {
  type ContentItem,
  checkMessages,
  imageOf,
  type Message,
  type Messages,
  type VideoItem,
  type VideoSource
} from '../../processors/text/messages.js'

export interface SaveOptions {
  /** Pictures in files stay where they are and only their paths are written, or their bytes are; 'path' unless given. */
  readonly pictures?: 'path' | 'content'
}

const isAddress = (source: ImageSource): source is string | URL => /^(https?|data):/i.test(sourceText(source))
const sourceText = (source: ImageSource): string => (typeof source === 'string' || source instanceof URL ? String(source) : '')

/** A picture as an item of a message. One behind an address is fetched once, here: a conversation shows it again and again. */
export const imageItem = async (source: ImageSource, options?: DownloadOptions): Promise<ContentItem> => {
  const text = sourceText(source)
  if (/^https?:/i.test(text)) return { type: 'image', url: text, image: await orThrow(download(text, options)) }
  if (isAddress(source)) return { type: 'image', url: text }
  return text === '' ? { type: 'image', image: source } : { type: 'image', path: text }
}

/** A film as an item of a message; one behind an address is fetched once, too. */
export const videoItem = async (source: VideoSource, options?: DownloadOptions): Promise<ContentItem> => {
  if (Array.isArray(source)) return { type: 'video', frames: source }
  const text = sourceText(source as ImageSource)
  if (/^https?:/i.test(text)) return { type: 'video', url: text, video: await orThrow(download(text, options)) }
  return text === '' ? { type: 'video', video: source } : { type: 'video', path: text }
}

const dataUrl = (bytes: Uint8Array | ArrayBuffer): string =>
  `data:application/octet-stream;base64,${Buffer.from(bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes)).toString('base64')}`

/** A picture as text: a path or an address, or all its bytes. */
const pictureText = async (source: ImageSource, { pictures = 'path' }: SaveOptions): Promise<string> => {
  const text = sourceText(source)
  if (text !== '') {
    if (isAddress(source)) return text
    const path = source instanceof URL || /^file:/i.test(text) ? text : resolve(text)
    return pictures === 'path' ? path : dataUrl(await readFile(/^file:/i.test(path) ? new URL(path) : path))
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

const savedVideo = async ({ video, frames, url, path, ...rest }: VideoItem, options: SaveOptions): Promise<VideoItem> => {
  const list = frames ?? (Array.isArray(video) ? (video as readonly ImageSource[]) : undefined)
  if (list) return { ...rest, frames: await Promise.all(list.map((frame) => pictureText(frame, options))) }
  const source = (options.pictures === 'content' ? (video ?? url ?? path) : (url ?? video ?? path)) as ImageSource
  const folder = await isFolder(sourceText(source))
  return { ...rest, path: await pictureText(source, folder ? {} : options) }
}

const savedItem = async (item: ContentItem, options: SaveOptions): Promise<ContentItem> => {
  if (item.type === 'text') return item
  if (item.type === 'video') return savedVideo(item, options)
  const source = options.pictures === 'content' ? imageOf(item) : (item.url ?? imageOf(item))
  return source === undefined ? item : { type: 'image', url: await pictureText(source, options) }
}

const savedMessage = async (message: Message, options: SaveOptions): Promise<Message> =>
  typeof message.content === 'string'
    ? message
    : { ...message, content: await Promise.all(message.content.map((item) => savedItem(item, options))) }

/** A conversation as JSON text; `restoreHistory` gives it back. */
export const saveHistory = async (messages: Messages, options: SaveOptions = {}): Promise<string> =>
  `${JSON.stringify({ messages: await Promise.all(messages.map((m) => savedMessage(m, options))) }, null, 1)}\n`

/** The conversation that `saveHistory` wrote. Errors: text that is no JSON, or no conversation; `name` is what they call it. */
export const restoreHistory = (json: string, name = 'history'): E.Either<Issues, Messages> => {
  const notSaved = (why: string) => E.left<Issues>([issue('History', `${name}: not a saved conversation (${why}).`, { name })])
  try {
    const messages = (JSON.parse(json) as { messages?: unknown } | null)?.messages
    if (!Array.isArray(messages)) return notSaved('it has no list of messages')
    return messages.length === 0 ? E.right([]) : checkMessages(messages, name)
  } catch (error) {
    return notSaved((error as Error).message)
  }
}
