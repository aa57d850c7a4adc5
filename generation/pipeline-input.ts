import { InternVLError, issue } from '../lib/error.js'
import { isRecord } from '../lib/plain-object.js'
import type { ImageSource } from '../processors/image/image.js'
import type { Messages } from '../processors/text/messages.js'

/** A rendered prompt with one image placeholder (`<IMG_CONTEXT>`) for every image; or several prompts, their images in order. */
export interface TextInput {
  readonly text: string | readonly string[]
  readonly images?: ImageSource | readonly ImageSource[] | undefined
}

/** One input: answered with one list of records. */
export type OneInput = Messages | string | TextInput | { readonly text: Messages }
/** Several inputs: each answered with a list of records. */
export type ManyInputs =
  | readonly Messages[]
  | readonly string[]
  | readonly (TextInput | { readonly text: Messages })[]
  | { readonly text: readonly Messages[] }

/** Input of one `prepare` call: a conversation, or prompts with their images. */
export type PipelineItem =
  | { readonly messages: Messages }
  | { readonly text: readonly string[]; readonly images: readonly ImageSource[] }

export interface PipelineRequest {
  readonly items: readonly PipelineItem[]
  /** Whether the input is a list, so that the output has one list of records for each item. */
  readonly isList: boolean
}

const fail = (message: string): never => {
  throw new InternVLError([issue('PipelineInput', message)])
}

const isMessage = (value: unknown): boolean => isRecord(value) && ('role' in value || 'content' in value)
const isChat = (value: unknown): value is Messages => Array.isArray(value) && value.length > 0 && value.every(isMessage)

const parseRecord = ({ text, images }: Record<string, unknown>): PipelineRequest => {
  if (text === undefined && images === undefined) return fail('You must at least provide either text or images.')
  if (text === undefined) return fail('You must provide text for this pipeline.')
  if (images === undefined) return parsePipelineInput(text)
  if (Array.isArray(text) && text.some((t) => typeof t === 'object'))
    return fail(
      "images: put the images of a conversation into its messages: content: [{ type: 'image', … }, { type: 'text', … }]."
    )
  const prompts = [text].flat().map((t) => (typeof t === 'string' ? t : fail('text: expected a string or a list of strings.')))
  return { items: [{ text: prompts, images: [images].flat() as ImageSource[] }], isList: false }
}

/** Parses the input of a pipeline call, as `ImageTextToTextPipeline.__call__` (transformers 5.24) does. */
export const parsePipelineInput = (input: unknown): PipelineRequest => {
  if (typeof input === 'string') return { items: [{ text: [input], images: [] }], isList: false }
  if (isChat(input)) return { items: [{ messages: input }], isList: false }
  if (Array.isArray(input)) {
    if (input.length === 0) return fail('The list of inputs is empty: give at least one.')
    return { items: input.flatMap((one) => parsePipelineInput(one).items), isList: true }
  }
  return isRecord(input) ? parseRecord(input) : fail('You must at least provide either text or images.')
}

/** Whether to continue the last message: as requested, or else if it is the assistant's. */
export const continuesFinalMessage = (messages: Messages, requested: boolean | undefined): boolean =>
  requested ?? messages.at(-1)?.role === 'assistant'

/** The conversation with the answer as a new message, or appended to the last message if that was continued. */
export const appendAnswer = (messages: Messages, answer: string, continued: boolean): Messages => {
  if (!continued) return [...messages, { role: 'assistant', content: answer }]
  const last = messages.at(-1)!
  if (typeof last.content === 'string') return [...messages.slice(0, -1), { ...last, content: last.content + answer }]
  const items = last.content ?? []
  const end = items.at(-1)
  const extended = end?.type === 'text' ? { ...end, text: end.text + answer } : fail('The final message has no text to continue.')
  return [...messages.slice(0, -1), { ...last, content: [...items.slice(0, -1), extended] }]
}
