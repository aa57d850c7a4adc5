import { Template } from '@huggingface/jinja'
import * as E from 'fp-ts/lib/Either.js'
import { type Issues, issue } from '../../lib/error.js'
import type { Messages } from './messages.js'

export interface RenderOptions {
  /** Ends the prompt with the head of the assistant's turn; true unless given, or the final message is continued. */
  readonly addGenerationPrompt?: boolean
  /** Leaves the last message open, so that the model writes on. */
  readonly continueFinalMessage?: boolean
  /** Further variables of the template, `enable_thinking` for example. */
  readonly templateVariables?: Readonly<Record<string, unknown>>
}

/** A rendered conversation: its text, and the stretches `[start, end)` of it that people wrote. */
export interface Prompt {
  readonly text: string
  readonly spans: readonly (readonly [start: number, end: number])[]
}

export interface ChatTemplate {
  /** The Jinja source. */
  readonly source: string
  /**
   * A conversation as a prompt. `control` are the texts that mean something to the model, which people may only
   * quote: `spans` tells where.
   */
  readonly render: (messages: Messages, control: readonly string[], options?: RenderOptions) => E.Either<Issues, Prompt>
}

type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json }
type MapText = (text: string) => string
type Variables = Readonly<Record<string, unknown>>

const isPlain = (value: object): boolean => [Object.prototype, null].includes(Object.getPrototypeOf(value))

/** What a template may see of a message: text mapped by `f`, nulls left out as Transformers does, bytes and pixels as ''. */
const toPlain = (value: unknown, f: MapText, key = ''): Json => {
  if (typeof value === 'string') return key === 'role' || key === 'type' ? value : f(value)
  if (typeof value === 'number' || typeof value === 'boolean' || value === null) return value
  if (Array.isArray(value)) return value.map((item) => toPlain(item, f))
  if (typeof value !== 'object' || value === null || !isPlain(value)) return ''
  const entries = Object.entries(value).filter(([, v]) => v !== undefined && v !== null)
  return Object.fromEntries(entries.map(([k, v]) => [k, toPlain(v, f, k)]))
}

interface Markers {
  readonly start: string
  readonly end: string
}

/** Two characters for private use that occur in none of the texts. */
const freeMarkers = (texts: readonly string[]): Markers => {
  const free: string[] = []
  for (let code = 0xe000; free.length < 2; code++) {
    const character = String.fromCharCode(code)
    if (!texts.some((text) => text.includes(character))) free.push(character)
  }
  return { start: free[0]!, end: free[1]! }
}

/** Removes the markers and remembers what stood between them; nothing when one of a pair is lost. */
const unmark = (marked: string, { start, end }: Markers): Prompt | undefined => {
  const spans: [number, number][] = []
  let [text, opened] = ['', -1]
  for (const piece of marked.split(new RegExp(`([${start}${end}])`))) {
    const open = opened >= 0
    if (piece === start ? open : piece === end && !open) return undefined
    if (piece === start) opened = text.length
    else if (piece === end) {
      spans.push([opened, text.length])
      opened = -1
    } else text += piece
  }
  return opened < 0 ? { text, spans } : undefined
}

// a template may trim what people write, so spaces stay outside
const wrap =
  ({ start, end }: Markers): MapText =>
  (text) =>
    text.replace(/\S(?:[\s\S]*\S)?/, (core) => start + core + end)

// a token with its first character marked is no longer found by a template that looks for it, but stands where it stood
const markToken =
  ({ start, end }: Markers, token: string): MapText =>
  (text) =>
    text.replaceAll(token, start + token[0] + end + token.slice(1))

const TAG = 'CONTINUE_FINAL_MESSAGE_TAG '

/** Sets `TAG` behind the last text of the last message. */
const tagged = (messages: readonly Json[]): readonly Json[] | undefined => {
  const last = messages.at(-1) as { content?: Json } | undefined
  const content = last?.content
  if (typeof content === 'string') return [...messages.slice(0, -1), { ...last, content: content + TAG }]
  const at = Array.isArray(content) ? content.findLastIndex((item) => typeof item === 'object' && 'text' in item) : -1
  if (!Array.isArray(content) || at < 0) return undefined
  const items = content.map((item, i) => (i === at ? { ...item, text: `${item.text}${TAG}` } : item))
  return [...messages.slice(0, -1), { ...last, content: items }]
}

const cutAtTag = (rendered: string): string => {
  const at = rendered.lastIndexOf(TAG.trim())
  if (at < 0) throw new Error('the template leaves out the final message, which is to be continued')
  return rendered.startsWith(TAG, at) ? rendered.slice(0, at) : rendered.slice(0, at).trimEnd()
}

type Render = (messages: readonly Json[]) => string

/** The template over plain messages; what it or the options refuse is thrown. */
const renderer = (template: Template, variables: Variables, options: RenderOptions): Render => {
  const { continueFinalMessage = false, addGenerationPrompt = !continueFinalMessage, templateVariables = {} } = options
  return (messages) => {
    if (continueFinalMessage && addGenerationPrompt)
      throw new Error('addGenerationPrompt and continueFinalMessage exclude each other')
    const shown = continueFinalMessage ? tagged(messages) : messages
    if (!shown) throw new Error('the final message has no text to continue')
    const scope = { ...variables, ...templateVariables, messages: shown, tools: null, documents: null }
    const rendered = template.render({ ...scope, add_generation_prompt: addGenerationPrompt })
    return continueFinalMessage ? cutAtTag(rendered) : rendered
  }
}

/** The prompt, and where people wrote it: it is rendered again with their texts marked. */
const promptOf = (render: Render, messages: Messages, control: readonly string[], source: string): Prompt => {
  const texts: string[] = []
  const remember: MapText = (said) => {
    texts.push(said)
    return said
  }
  const plain = (f: MapText): readonly Json[] => messages.map((message) => toPlain(message, f))
  const text = render(plain(remember))
  const markers = freeMarkers([source, text, ...texts])
  const marked = (f: MapText): Prompt | undefined => {
    const shown = E.tryCatch(
      () => unmark(render(plain(f)), markers),
      () => undefined // a template may refuse a text that it does not know
    )
    return E.isRight(shown) && shown.right?.text === text ? shown.right : undefined
  }
  const whole = marked(wrap(markers))
  if (whole) return whole
  // the template takes the text apart: mark the tokens in it, but not those that it looks for itself, which are its syntax
  const typed = control.filter((token) => texts.some((said) => said.includes(token)))
  return { text, spans: typed.flatMap((token) => marked(markToken(markers, token))?.spans ?? []) }
}

/** Compiles a Jinja chat template; `variables` are the checkpoint's named tokens (`bos_token`, …), as Transformers passes them. */
export const compileTemplate = (source: string, variables: Variables, name: string): E.Either<Issues, ChatTemplate> => {
  const reason = (error: unknown): string => (error instanceof Error ? error.message : String(error))
  const attempt = <A>(what: string, run: () => A): E.Either<Issues, A> =>
    E.tryCatch(run, (error): Issues => [issue('ChatTemplate', `${name}: ${what}: ${reason(error)}.`, { name })])
  return E.map(
    (template: Template): ChatTemplate => ({
      source,
      render: (messages, control, options = {}) =>
        attempt('the conversation cannot be rendered', () =>
          promptOf(renderer(template, variables, options), messages, control, source)
        )
    })
  )(attempt('not a Jinja template', () => new Template(source)))
}
