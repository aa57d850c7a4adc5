import { joinPieces, makeCallId, type ParsedPiece, partialLength, readCalls, type ToolCallParser } from './tool-call-parser.js'

/** Destination of a message of the answer. */
type Destination = { readonly kind: 'text' | 'reasoning' } | { readonly kind: 'call'; readonly name: string }

const MESSAGE = '<|message|>'
const START = '<|start|>'
const ENDS = ['<|end|>', '<|call|>', '<|return|>', START] as const

/** Whether a text may be the beginning of a message's header. Other text continues a message that the prompt has begun. */
const isHeader = (text: string): boolean =>
  ['<|channel|>', ' to=', START].some((word) => word.startsWith(text.slice(0, word.length)))

/** Destination of a message by its header, such as `assistant<|channel|>commentary to=functions.NAME <|constrain|>json`. */
const destinationOf = (header: string): Destination => {
  const [, name] = /\bto=functions\.([\w.-]+)/.exec(header) ?? []
  if (name !== undefined) return { kind: 'call', name }
  return { kind: /<\|channel\|>\s*analysis\b/.test(header) ? 'reasoning' : 'text' }
}

/**
 * A parser of answers in the channels of GPT-OSS: the final channel is the text, the analysis is `reasoning`, and messages to a
 * function are calls. Source: https://cookbook.openai.com/articles/openai-harmony
 */
export const harmonyParser = (names: readonly string[]): ToolCallParser => {
  let buffer = ''
  /** The message that is being read; undefined in a header. */
  let current: Destination | undefined
  let isFirst = true

  /** Text, reasoning or calls of a piece of the current message; `isWhole`: the message ends after the piece. */
  const piece = (body: string, isWhole: boolean): { readonly piece: ParsedPiece; readonly rest: string } => {
    if (current?.kind !== 'call')
      return {
        piece: current?.kind === 'reasoning' ? { text: '', calls: [], reasoning: body } : { text: body, calls: [] },
        rest: ''
      }
    if (!isWhole) return { piece: { text: '', calls: [] }, rest: body }
    const { name } = current
    const calls = readCalls(() => [{ name, arguments: JSON.parse(body.trim() || '{}') }], names, makeCallId)
    return { piece: calls ? { text: '', calls } : { text: body, calls: [] }, rest: '' }
  }
  const next = (isLast: boolean): readonly ParsedPiece[] => {
    if (!current) {
      if (isFirst && !isHeader(buffer)) current = { kind: 'text' }
      else {
        const at = buffer.indexOf(MESSAGE)
        if (at < 0) {
          const text = isLast && isFirst && !/^(<\|| to=)/.test(buffer) ? buffer : ''
          if (isLast) buffer = '' // a header without a message
          return [{ text, calls: [] }]
        }
        current = destinationOf(buffer.slice(0, at))
        buffer = buffer.slice(at + MESSAGE.length)
      }
      isFirst = false
    }
    const found = ENDS.map((word) => ({ word, at: buffer.indexOf(word) })).filter(({ at }) => at >= 0)
    const [first] = found.sort((a, b) => a.at - b.at)
    if (!first) {
      const held = isLast ? 0 : partialLength(buffer, ENDS)
      const { piece: last, rest } = piece(buffer.slice(0, buffer.length - held), isLast)
      buffer = rest + buffer.slice(buffer.length - held)
      return [last]
    }
    const { piece: whole } = piece(buffer.slice(0, first.at), true)
    buffer = buffer.slice(first.at + first.word.length)
    current = undefined
    return [whole, ...next(isLast)]
  }
  return {
    push: (text) => {
      buffer += text
      return buffer === '' ? { text: '', calls: [] } : joinPieces(next(false))
    },
    end: () => joinPieces(next(true))
  }
}
