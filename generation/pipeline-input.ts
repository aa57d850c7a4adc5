import { InternVLError, issue } from '../lib/error.js'
import type { ImageSource } from '../processors/image/image.js'
import type { Messages } from '../processors/text/messages.js'

/** A prompt already in the checkpoint's format, its `<IMG_CONTEXT>` for every picture; or several, their pictures in order. */
export interface TextInput {
  readonly text: string | readonly string[]
  readonly images?: ImageSource | readonly ImageSource[] | undefined
}

/** What is answered with one list. */
export type OneInput = Messages | string | TextInput | { readonly text: Messages }
/** What is answered with a list for each. */
export type ManyInputs =
  | readonly Messages[]
  | readonly string[]
  | readonly (TextInput | { readonly text: Messages })[]
  | { readonly text: readonly Messages[] }

/** What goes through the model together: a conversation, or prompts with their pictures. */
export type Unit = { readonly messages: Messages } | { readonly text: readonly string[]; readonly images: readonly ImageSource[] }

export interface Work {
  readonly units: readonly Unit[]
  /** Whether a list was given, so that each unit has a list of its own in the answer. */
  readonly nested: boolean
}

const refuse = (message: string): never => {
  throw new InternVLError([issue('PipelineInput', message)])
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
const isMessage = (value: unknown): boolean => isRecord(value) && ('role' in value || 'content' in value)
const isChat = (value: unknown): value is Messages => Array.isArray(value) && value.length > 0 && value.every(isMessage)

const ofRecord = ({ text, images }: Record<string, unknown>): Work => {
  if (text === undefined && images === undefined) return refuse('You must at least provide either text or images.')
  if (text === undefined) return refuse('You must provide text for this pipeline.')
  if (images === undefined) return workOf(text)
  if (Array.isArray(text) && text.some((t) => typeof t === 'object'))
    return refuse("Pictures of a conversation belong into its messages: content: [{ type: 'image', … }, { type: 'text', … }].")
  const prompts = [text]
    .flat()
    .map((t) => (typeof t === 'string' ? t : refuse('text: it should be a string or a list of strings.')))
  return { units: [{ text: prompts, images: [images].flat() as ImageSource[] }], nested: false }
}

/** Reads what a pipeline is called with, as `ImageTextToTextPipeline.__call__` (transformers 5.23) does. */
export const workOf = (input: unknown): Work => {
  if (typeof input === 'string') return { units: [{ text: [input], images: [] }], nested: false }
  if (isChat(input)) return { units: [{ messages: input }], nested: false }
  if (Array.isArray(input)) {
    if (input.length === 0) return refuse('The list of inputs is empty: give at least one.')
    return { units: input.flatMap((one) => workOf(one).units), nested: true }
  }
  return isRecord(input) ? ofRecord(input) : refuse('You must at least provide either text or images.')
}

/** Whether the last message is to be written on: as asked, else where it is the assistant's. */
export const continues = (messages: Messages, asked: boolean | undefined): boolean =>
  asked ?? messages.at(-1)?.role === 'assistant'

/** The conversation with the answer: as a turn of its own, or written on to the last one. */
export const withAnswer = (messages: Messages, answer: string, continued: boolean): Messages => {
  if (!continued) return [...messages, { role: 'assistant', content: answer }]
  const last = messages.at(-1)!
  if (typeof last.content === 'string') return [...messages.slice(0, -1), { ...last, content: last.content + answer }]
  const end = last.content.at(-1)
  const written =
    end?.type === 'text' ? { ...end, text: end.text + answer } : refuse('The final message has no text to continue.')
  return [...messages.slice(0, -1), { ...last, content: [...last.content.slice(0, -1), written] }]
}
