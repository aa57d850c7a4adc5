import { randomUUID } from 'node:crypto'

/** A call of a tool in OpenAI's shape. */
export interface ToolCall {
  readonly id: string
  readonly type: 'function'
  readonly function: { readonly name: string; readonly arguments: string }
}

/** New text and new calls of an answer. */
export interface ParsedPiece {
  readonly text: string
  readonly calls: readonly ToolCall[]
  /** Text of a channel that is not the answer: the thoughts of GPT-OSS. */
  readonly reasoning?: string
}

/** Separates the calls of tools from the text of an answer, piece by piece. */
export interface ToolCallParser {
  readonly push: (text: string) => ParsedPiece
  /** The rest of the answer; a call that is incomplete or of an unknown tool stays text. */
  readonly end: () => ParsedPiece
}

/** Pieces that follow one another as one piece. */
export const joinPieces = (pieces: readonly ParsedPiece[]): ParsedPiece => {
  const reasoning = pieces.map((piece) => piece.reasoning ?? '').join('')
  return {
    text: pieces.map(({ text }) => text).join(''),
    calls: pieces.flatMap(({ calls }) => calls),
    ...(reasoning === '' ? {} : { reasoning })
  }
}

/** The text and the calls of the rest of an answer. */
export const parseRest = (parser: ToolCallParser, text: string): ParsedPiece => joinPieces([parser.push(text), parser.end()])

/** A call as the model writes it: the arguments are JSON, as data or as a text. */
export interface WrittenCall {
  readonly name: unknown
  readonly arguments: unknown
}

/** Form of calls between a start and an end in the text of an answer. */
export interface DelimitedCalls {
  readonly start: string
  /** Ends the calls of one start; undefined where the end of the answer does. */
  readonly end?: string
  /** An answer that begins so is calls as a whole, without a start. */
  readonly opening?: string
  /** The calls of the text after a start; undefined if the text has another form. May throw a `SyntaxError`. */
  readonly read: (text: string) => readonly WrittenCall[] | undefined
  readonly makeId: () => string
}

/** An id of 24 hexadecimal digits, as OpenAI's. */
export const makeCallId = (): string => `call_${randomUUID().replaceAll('-', '').slice(0, 24)}`

/** Calls in OpenAI's shape; undefined where one is no call of the tools. */
const toCalls = (
  written: readonly WrittenCall[] | undefined,
  names: readonly string[],
  makeId: () => string
): readonly ToolCall[] | undefined => {
  if (!written || written.length === 0) return undefined
  const calls = written.flatMap(({ name, arguments: given = {} }): readonly ToolCall[] =>
    typeof name === 'string' && names.includes(name)
      ? [
          {
            id: makeId(),
            type: 'function',
            function: { name, arguments: typeof given === 'string' ? given : JSON.stringify(given) }
          }
        ]
      : []
  )
  return calls.length === written.length ? calls : undefined
}

/** `toCalls` of the calls that `read` gives; undefined where it throws, too. */
export const readCalls = (
  read: () => readonly WrittenCall[] | undefined,
  names: readonly string[],
  makeId: () => string
): readonly ToolCall[] | undefined => {
  try {
    return toCalls(read(), names, makeId)
  } catch {
    return undefined
  }
}

/** Length of the longest end of `text` that is a beginning of one of the words, and not the whole word. */
export const partialLength = (text: string, words: readonly string[]): number => {
  const longest = Math.min(text.length, Math.max(0, ...words.map((word) => word.length - 1)))
  for (let n = longest; n > 0; n--) if (words.some((word) => n < word.length && word.startsWith(text.slice(-n)))) return n
  return 0
}

/** A parser that finds no calls. */
export const plainParser = (): ToolCallParser => ({
  push: (text) => ({ text, calls: [] }),
  end: () => ({ text: '', calls: [] })
})

/** A parser of calls between delimiters, for the tools of these names. */
export const delimitedCallParser = (syntax: DelimitedCalls, names: readonly string[]): ToolCallParser => {
  const { start, end, opening, read, makeId } = syntax
  let buffer = ''
  let hasCalls = false
  let hasText = false
  /** White space around calls belongs to no text. */
  const shown = (text: string): string => (hasCalls ? text.trim() : text)
  /** The first start of calls in the buffer, and the index of their text. */
  const findStart = (): { readonly at: number; readonly body: number } | undefined => {
    if (opening !== undefined && !hasText && !hasCalls && buffer.trimStart().startsWith(opening)) return { at: 0, body: 0 }
    const at = buffer.indexOf(start)
    return at < 0 ? undefined : { at, body: at + start.length }
  }
  const next = (isLast: boolean): ParsedPiece => {
    const found = findStart()
    const close = !found || end === undefined ? -1 : buffer.indexOf(end, found.body)
    const isComplete = found !== undefined && (close >= 0 || (isLast && end === undefined))
    if (isComplete) {
      const [bodyEnd, after] = close >= 0 ? [close, close + end!.length] : [buffer.length, buffer.length]
      const calls = readCalls(() => read(buffer.slice(found.body, bodyEnd)), names, makeId)
      const before = buffer.slice(0, found.at)
      const raw = buffer.slice(found.at, after)
      buffer = buffer.slice(after)
      const text = calls ? shown(before.trimEnd()) : shown(before) + raw
      hasCalls ||= calls !== undefined
      hasText ||= text !== ''
      return joinPieces([{ text, calls: calls ?? [] }, next(isLast)])
    }
    // white space is kept back: calls may follow
    const held = found ? buffer.length - found.at : partialLength(buffer, [start])
    const visible = buffer.slice(0, buffer.length - held)
    const upTo = isLast ? buffer.length : visible.trimEnd().length
    const text = shown(buffer.slice(0, upTo))
    buffer = buffer.slice(upTo)
    hasText ||= text !== ''
    return { text, calls: [] }
  }
  return {
    push: (text) => {
      buffer += text
      return next(false)
    },
    end: () => next(true)
  }
}
