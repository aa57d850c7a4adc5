import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import { errorText, type Issues, issue } from '../../lib/error.js'
import { compileJinja, type JinjaTemplate } from './jinja/jinja-interpreter.js'
import type { Messages } from './messages.js'

export interface RenderOptions {
  /** Ends the prompt with the header of the assistant's turn. Default: true, unless the final message is continued. */
  readonly addGenerationPrompt?: boolean
  /** Leaves the last message open, so that the model continues it. */
  readonly continueFinalMessage?: boolean
  /** Additional variables of the template, for example `enable_thinking`. */
  readonly templateVariables?: Readonly<Record<string, unknown>>
  /** JSON schemas of the tools that the model may call, for templates that support tools. */
  readonly tools?: readonly unknown[]
  /** Documents for templates of retrieval-augmented generation. */
  readonly documents?: readonly unknown[]
  /** Jinja source of another template for this call. */
  readonly chatTemplate?: string
}

/** The characters `[start, end)` of a prompt that are message text, and whether the message is one of the assistant. */
export type MessageSpan = readonly [start: number, end: number, isAssistant: boolean]

/** A rendered conversation: its text, and the spans of message texts. */
export interface Prompt {
  readonly text: string
  readonly spans: readonly MessageSpan[]
}

export interface ChatTemplate {
  /** The Jinja source. */
  readonly source: string
  /**
   * Renders a conversation. `control` are texts of tokens; `spans` of the result covers all their occurrences in message
   * texts.
   */
  readonly render: (messages: Messages, control: readonly string[], options?: RenderOptions) => E.Either<Issues, Prompt>
}

type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json }
type MapText = (text: string) => string
type Variables = Readonly<Record<string, unknown>>

const isPlain = (value: object): boolean => [Object.prototype, null].includes(Object.getPrototypeOf(value))

/** Names that a template may compare or look up; they contain no token. */
const isName = (text: string): boolean => /^[\w$.-]*$/.test(text)

/** A value for the template: texts mapped by `f`, bytes and pixels replaced by ''. */
const toPlain = (value: unknown, f: MapText, key = ''): Json => {
  if (typeof value === 'string') return (key === 'role' || key === 'type') && isName(value) ? value : f(value)
  if (typeof value === 'number' || typeof value === 'boolean' || value === null) return value
  if (Array.isArray(value)) return value.map((item) => toPlain(item, f))
  if (typeof value !== 'object' || value === null || !isPlain(value)) return ''
  const entries = Object.entries(value).filter(([, v]) => v !== undefined)
  return Object.fromEntries(entries.map(([k, v]) => [isName(k) ? k : f(k), toPlain(v, f, k)]))
}

/** A message for the template. Fields of the message itself that are null are omitted. Source: `render_jinja_template` (transformers 5.24). */
const toPlainMessage = (message: Messages[number], f: MapText): Json =>
  toPlain(Object.fromEntries(Object.entries(message).filter(([, value]) => value !== null)), f)

interface Markers {
  readonly start: string
  /** Start of a text of the assistant. */
  readonly assistantStart: string
  readonly end: string
}

/** Markers that occur in none of the texts: numbers between private-use characters. Terminates for every text. */
const unusedMarkers = (texts: readonly string[]): Markers => {
  const marker = (n: number): string => `\uE000${n}\uE001`
  const used = new Set(texts.flatMap((text) => text.match(/\uE000\d+\uE001/g) ?? []))
  let n = 0
  while ([n, n + 1, n + 2].some((m) => used.has(marker(m)))) n++
  return { start: marker(n), assistantStart: marker(n + 1), end: marker(n + 2) }
}

/** Removes the markers and returns the spans between them; undefined where a marker is missing. */
const unmark = (marked: string, { start, assistantStart, end }: Markers): Prompt | undefined => {
  const spans: MessageSpan[] = []
  let text = ''
  let open: { readonly start: number; readonly isAssistant: boolean } | undefined
  for (const piece of marked.split(new RegExp(`(${start}|${assistantStart}|${end})`))) {
    const isStart = piece === start || piece === assistantStart
    if (isStart ? open : piece === end && !open) return undefined
    if (isStart) open = { start: text.length, isAssistant: piece === assistantStart }
    else if (piece === end) {
      spans.push([open!.start, text.length, open!.isAssistant])
      open = undefined
    } else text += piece
  }
  return open ? undefined : { text, spans }
}

/** Puts markers around a text; outer white space stays outside, since a template may trim it. */
const markText =
  (start: string, end: string): MapText =>
  (text) =>
    text.replace(/\S(?:[\s\S]*\S)?/, (core) => start + core + end)

/** Puts markers around the first character of each `token`, so that a template no longer recognizes the token in the text. */
const markToken =
  (token: string) =>
  (start: string, end: string): MapText =>
  (text) =>
    text.replaceAll(token, start + token[0] + end + token.slice(1))

const CONTINUE_TAG = 'CONTINUE_FINAL_MESSAGE_TAG '

/** Appends `CONTINUE_TAG` to the last text of the last message; undefined where that message has no text. */
const tagFinalMessage = (messages: readonly Json[]): readonly Json[] | undefined => {
  const last = messages.at(-1) as { content?: Json } | undefined
  const content = last?.content
  if (typeof content === 'string') return [...messages.slice(0, -1), { ...last, content: content + CONTINUE_TAG }]
  const index = Array.isArray(content) ? content.findLastIndex((item) => typeof item === 'object' && 'text' in item) : -1
  if (!Array.isArray(content) || index < 0) return undefined
  const items = content.map((item, i) => (i === index ? { ...item, text: `${item.text}${CONTINUE_TAG}` } : item))
  return [...messages.slice(0, -1), { ...last, content: items }]
}

/** The rendered text before `CONTINUE_TAG`. */
const beforeTag = (rendered: string): string => {
  const at = rendered.lastIndexOf(CONTINUE_TAG.trim())
  if (at < 0) throw new Error('the template omits the final message, which is to be continued')
  return rendered.startsWith(CONTINUE_TAG, at) ? rendered.slice(0, at) : rendered.slice(0, at).trimEnd()
}

/** Values from the caller that the template sees. */
interface TemplateInputs {
  readonly messages: readonly Json[]
  readonly tools: Json
  readonly documents: Json
}

type Render = (inputs: TemplateInputs) => string

/** Renders plain messages; throws the errors of the template and of the options. */
const renderer = (template: JinjaTemplate, variables: Variables, options: RenderOptions): Render => {
  const { continueFinalMessage = false, addGenerationPrompt = !continueFinalMessage, templateVariables = {} } = options
  return ({ messages, tools, documents }) => {
    if (continueFinalMessage && addGenerationPrompt)
      throw new Error('addGenerationPrompt and continueFinalMessage exclude each other')
    const tagged = continueFinalMessage ? tagFinalMessage(messages) : messages
    if (!tagged) throw new Error('the final message has no text to continue')
    const scope = { ...variables, ...templateVariables, messages: tagged, tools, documents }
    const rendered = template({ ...scope, add_generation_prompt: addGenerationPrompt })
    return continueFinalMessage ? beforeTag(rendered) : rendered
  }
}

/** Renders a conversation, and renders it again with marked message texts to find their spans in the prompt. */
const promptOf = (
  render: Render,
  messages: Messages,
  control: readonly string[],
  source: string,
  { templateVariables, tools, documents }: RenderOptions
): Prompt => {
  const inputsWith = (user: MapText, assistant: MapText): TemplateInputs => ({
    messages: messages.map((message) => toPlainMessage(message, message.role === 'assistant' ? assistant : user)),
    tools: toPlain(tools ?? templateVariables?.tools ?? null, user),
    documents: toPlain(documents ?? templateVariables?.documents ?? null, user)
  })
  const texts: string[] = []
  const collectText: MapText = (text) => {
    texts.push(text)
    return text
  }
  const text = render(inputsWith(collectText, collectText))
  const markers = unusedMarkers([source, text, ...texts])
  const renderMarked = (mark: (start: string, end: string) => MapText): Prompt | undefined => {
    const { start, assistantStart, end } = markers
    const marked = inputsWith(mark(start, end), mark(assistantStart, end))
    const prompt = E.tryCatch(
      () => unmark(render(marked), markers),
      () => undefined // a template may reject a marked text
    )
    return E.isRight(prompt) && prompt.right?.text === text ? prompt.right : undefined
  }
  const wholeTexts = renderMarked(markText)
  if (wholeTexts) return wholeTexts
  // The template splits or edits message texts: mark single tokens instead. A token that the template itself looks for is its
  // syntax; marking changes the rendered text, so such a token gets no span.
  const quoted = control.filter((token) => texts.some((text) => text.includes(token)))
  return { text, spans: quoted.flatMap((token) => renderMarked(markToken(token))?.spans ?? []) }
}

/** Message of a template that fails. The parser ends with a `TypeError` where an expression is incomplete, the interpreter where a value is missing. */
const reasonOf = (error: unknown): string =>
  error instanceof TypeError ? 'an expression is incomplete, or uses a value that does not exist' : errorText(error)

/** Compiles a Jinja chat template; `variables` are the checkpoint's named tokens (`bos_token`, …), as Transformers passes them. */
export const compileTemplate = (source: string, variables: Variables, name: string): E.Either<Issues, ChatTemplate> => {
  const attempt = <A>(failure: string, run: () => A): E.Either<Issues, A> =>
    E.tryCatch(run, (error): Issues => [issue('ChatTemplate', `${name}: ${failure}: ${reasonOf(error)}.`, { name })])
  return pipe(
    attempt('not a Jinja template', () => compileJinja(source)),
    E.map((template) => ({
      source,
      render: (messages, control, options = {}) => {
        const { chatTemplate, ...rest } = options
        if (chatTemplate !== undefined && chatTemplate !== source)
          return pipe(
            compileTemplate(chatTemplate, variables, 'chatTemplate'),
            E.chain((other) => other.render(messages, control, rest))
          )
        return attempt('the conversation cannot be rendered', () =>
          promptOf(renderer(template, variables, options), messages, control, source, options)
        )
      }
    }))
  )
}
