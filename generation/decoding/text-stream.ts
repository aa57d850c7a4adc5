import type { Decode } from './generation-options.js'
import type { GenerationResult, GenerationStream } from './prepare-generation.js'

/** Incremental decoding of one row: token ids in, pieces of text out. */
export interface TextStream {
  /** The text that is final after this token; empty while a character or a possible stop string is incomplete. */
  readonly push: (token: number) => string
  /** The remaining text at the end of the row. */
  readonly end: () => string
}

/** Unicode's replacement character: the decoded text of bytes that are not, or not yet, a whole character. */
const replacementCharacter = '\uFFFD'

/** After this many tokens without a whole character at their end, the first tokens are released as broken. */
const maxPendingTokens = 12
const longestCharacter = 4

/**
 * Incremental decoding up to the last whole character. Only tokens since the last whole character are decoded again, after the
 * tokens before them as context (a decoder may treat the first token differently), so the work grows linearly with the length.
 */
const characterStream = (decode: Decode): TextStream => {
  let context: readonly number[] = []
  let pending: readonly number[] = []
  const textOfTokens = (before: readonly number[], tokens: readonly number[]) =>
    decode([...before, ...tokens]).slice(decode(before).length)
  const releaseBroken = (text: string): string => {
    if (text === '') pending = pending.slice(-longestCharacter) // tokens without text
    for (let cut = pending.length - longestCharacter; cut > pending.length - 2 * longestCharacter; cut--) {
      const [head, tail] = [pending.slice(0, cut), pending.slice(cut)]
      const piece = textOfTokens(context, head)
      if (piece === '' || piece + textOfTokens(head, tail) !== text) continue // the cut would split a character
      context = head
      pending = tail
      return piece
    }
    return ''
  }
  return {
    push: (token) => {
      pending = [...pending, token]
      const text = textOfTokens(context, pending)
      if (text === '' || text.endsWith(replacementCharacter)) return pending.length > maxPendingTokens ? releaseBroken(text) : ''
      context = pending
      pending = []
      return text
    },
    end: () => (pending.length > 0 ? textOfTokens(context, pending) : '')
  }
}

/** Length of the longest suffix of `text` that is a prefix of a stop string. */
const partialStopLength = (text: string, stops: readonly string[]): number => {
  const longest = Math.min(text.length, Math.max(0, ...stops.map((stop) => stop.length - 1)))
  for (let n = longest; n > 0; n--) if (stops.some((stop) => stop.startsWith(text.slice(-n)))) return n
  return 0
}

/** Start index of the stop string that is complete first; -1 if there is none. */
const indexOfFirstStop = (text: string, stops: readonly string[]): number => {
  const found = stops.map((stop) => ({ at: text.indexOf(stop), end: text.indexOf(stop) + stop.length }))
  const [first] = found.filter(({ at }) => at >= 0).sort((a, b) => a.end - b.end || a.at - b.at)
  return first?.at ?? -1
}

/**
 * The text of one row in pieces that never contain part of a character or of a stop string. The pieces joined are the decoded
 * text up to the first complete stop string.
 */
export const textStream = (decode: Decode, stopStrings: readonly string[] = []): TextStream => {
  const characters = characterStream(decode)
  let buffer = ''
  let isStopped = false
  const release = (text: string, last: boolean): string => {
    if (isStopped) return ''
    buffer += text
    const stop = indexOfFirstStop(buffer, stopStrings)
    isStopped = stop >= 0
    const upTo = isStopped ? stop : buffer.length - (last ? 0 : partialStopLength(buffer, stopStrings))
    const piece = buffer.slice(0, upTo)
    buffer = buffer.slice(upTo)
    return piece
  }
  return { push: (token) => release(characters.push(token), false), end: () => release(characters.end(), true) }
}

/** Decodes the steps of `generate`: yields the new text of every row, possibly empty, and returns the result of the steps. */
export async function* streamText(
  steps: GenerationStream,
  decode: Decode,
  stopStrings: readonly string[] = []
): AsyncGenerator<readonly string[], GenerationResult, void> {
  let rows: readonly TextStream[] = []
  try {
    while (true) {
      const { done, value } = await steps.next()
      if (done) {
        const ends = rows.map((row) => row.end())
        if (ends.some((text) => text !== '')) yield ends
        return value
      }
      if (rows.length === 0) rows = value.tokens.map(() => textStream(decode, stopStrings))
      yield value.tokens.map((token, i) => (token === undefined ? '' : rows[i]!.push(token)))
    }
  } finally {
    await steps.return?.(undefined as never)
  }
}
