import type { ContentItem, Message, Messages } from '../../../processors/text/messages.js'
import { RequestError } from '../server-errors.js'
import type { ChatMessage, ContentPart } from './chat-request.js'

/** An image or video of a request: its URL, and the field that has the URL. */
export interface MediaField {
  readonly url: string
  readonly param: string
  readonly detail: 'auto' | 'low' | 'high' | 'original'
}

type Link = string | { readonly url: string; readonly detail?: MediaField['detail'] | null | undefined }

const urlOf = (link: Link): string => (typeof link === 'string' ? link : link.url)

const linkOf = (part: Extract<ContentPart, { readonly type: 'image_url' | 'input_image' | 'video_url' }>): Link =>
  part.type === 'video_url' ? part.video_url : part.image_url

type TextPart = Extract<ContentPart, { readonly type: 'text' | 'input_text' | 'refusal' }>

const isText = (part: ContentPart): part is TextPart => ['text', 'input_text', 'refusal'].includes(part.type)

const textOf = (part: TextPart): string => (part.type === 'refusal' ? part.refusal : part.text)

const mediaField = (part: ContentPart, at: string): readonly MediaField[] => {
  if (isText(part)) return []
  const link = linkOf(part)
  const name = part.type === 'video_url' ? 'video_url' : 'image_url'
  const detail = (part.type === 'input_image' ? part.detail : undefined) ?? (typeof link === 'object' ? link.detail : undefined)
  return [{ url: urlOf(link), param: `${at}.${name}${typeof link === 'string' ? '' : '.url'}`, detail: detail ?? 'auto' }]
}

/** All images and videos of a conversation. */
export const mediaFields = (messages: readonly ChatMessage[]): readonly MediaField[] =>
  messages.flatMap(({ content }, i) =>
    Array.isArray(content) ? content.flatMap((part, j) => mediaField(part, `messages[${i}].content[${j}]`)) : []
  )

const toItem = (part: ContentPart): ContentItem => {
  if (isText(part)) return { type: 'text', text: textOf(part) }
  return { type: part.type === 'video_url' ? 'video' : 'image', url: urlOf(linkOf(part)) }
}

/** Arguments of a call as an object, which chat templates expect. */
const parsedArguments = (text: string, param: string): unknown => {
  try {
    return text.trim() === '' ? {} : JSON.parse(text) // some clients send no text for no arguments
  } catch {
    throw new RequestError(400, `${param}: expected JSON as a text`, param, 'invalid_json')
  }
}

/** One message for the chat template. A developer's message is a system message, the only one that templates know. */
const toMessage = ({ role, content, ...fields }: ChatMessage, i: number): Message => {
  const { tool_calls, ...others } = fields as { readonly tool_calls?: Extract<ChatMessage, { role: 'assistant' }>['tool_calls'] }
  const calls = tool_calls?.map((call, j) => {
    const param = `messages[${i}].tool_calls[${j}].function.arguments`
    return { ...call, function: { ...call.function, arguments: parsedArguments(call.function.arguments, param) } }
  })
  const text = Array.isArray(content) && content.every(isText) ? content.map(textOf).join('\n') : content
  return {
    role: role === 'developer' ? 'system' : role,
    content: Array.isArray(text) ? text.map(toItem) : (text ?? (calls ? null : '')),
    ...(calls ? { tool_calls: calls } : {}),
    ...others
  } as Message
}

/** A conversation of the API as messages of the library. Throws a `RequestError` for arguments of a call that are no JSON. */
export const toMessages = (messages: readonly ChatMessage[]): Messages => messages.map(toMessage)

/** The tiles of an image for `detail`: one if every image asks for low detail, else as many as the model has by default. */
export const patchesFor = (media: readonly MediaField[]): number | undefined =>
  media.length > 0 && media.every(({ detail }) => detail === 'low') ? 1 : undefined

/** Names the field of the image or video that an error is about. */
export const mediaParam =
  (media: readonly MediaField[]) =>
  (issue: unknown): string | null => {
    const { url, name, path, message = '' } = issue as Readonly<Record<string, string | undefined>>
    const found = media.find((field) => [url, name, path].includes(field.url) || message.startsWith(field.url.slice(0, 200)))
    return found?.param ?? (media.length === 1 ? media[0]!.param : null)
  }
