import type { Generation, GenerationResult } from './generation-plan.js'
import type { Decode } from './step.js'

/** Text of one row as it comes: tokens in, pieces of text out. */
export interface TextStream {
  /** The text that is certain now; often a token's own, sometimes none yet. */
  readonly push: (token: number) => string
  /** What was held back. */
  readonly end: () => string
}

/** What stands for bytes that are no character, or not yet. */
const broken = '\uFFFD'

/** Of so many tokens without a whole character at their end, the first are given up as broken: a character is at most four. */
const patience = 12
const longestCharacter = 4

/**
 * Decodes token by token. Only tokens since the last whole character are decoded again, with those just before them as context
 * (a decoder may treat the first token differently), so the work is in proportion to the length.
 */
const wholeCharacters = (decode: Decode): TextStream => {
  let context: readonly number[] = []
  let fresh: readonly number[] = []
  const textAfter = (before: readonly number[], tokens: readonly number[]) =>
    decode([...before, ...tokens]).slice(decode(before).length)
  const giveUp = (text: string): string => {
    if (text === '') fresh = fresh.slice(-longestCharacter) // tokens that have no text
    for (let cut = fresh.length - longestCharacter; cut > fresh.length - 2 * longestCharacter; cut--) {
      const [head, tail] = [fresh.slice(0, cut), fresh.slice(cut)]
      const piece = textAfter(context, head)
      if (piece === '' || piece + textAfter(head, tail) !== text) continue // the cut would go through a character
      context = head
      fresh = tail
      return piece
    }
    return ''
  }
  return {
    push: (token) => {
      fresh = [...fresh, token]
      const text = textAfter(context, fresh)
      if (text === '' || text.endsWith(broken)) return fresh.length > patience ? giveUp(text) : ''
      context = fresh
      fresh = []
      return text
    },
    end: () => (fresh.length > 0 ? textAfter(context, fresh) : '')
  }
}

/** The length of the longest end of `text` with which one of `stops` begins. */
const heldBack = (text: string, stops: readonly string[]): number => {
  const longest = Math.min(text.length, Math.max(0, ...stops.map((stop) => stop.length - 1)))
  for (let n = longest; n > 0; n--) if (stops.some((stop) => stop.startsWith(text.slice(-n)))) return n
  return 0
}

/** Where the stop string begins that is complete first; -1 when none is. */
const firstOf = (text: string, stops: readonly string[]): number => {
  const found = stops.map((stop) => ({ at: text.indexOf(stop), end: text.indexOf(stop) + stop.length }))
  const [first] = found.filter(({ at }) => at >= 0).sort((a, b) => a.end - b.end || a.at - b.at)
  return first?.at ?? -1
}

/**
 * The text of one row, piece by piece: never part of a character, and never part of a stop string. The pieces joined are the
 * decoded text, up to the stop string that is complete first.
 */
export const textStream = (decode: Decode, stopStrings: readonly string[] = []): TextStream => {
  const characters = wholeCharacters(decode)
  let held = ''
  let stopped = false
  const release = (text: string, last: boolean): string => {
    if (stopped) return ''
    held += text
    const stop = firstOf(held, stopStrings)
    stopped = stop >= 0
    const upTo = stopped ? stop : held.length - (last ? 0 : heldBack(held, stopStrings))
    const piece = held.slice(0, upTo)
    held = held.slice(upTo)
    return piece
  }
  return { push: (token) => release(characters.push(token), false), end: () => release(characters.end(), true) }
}

/** Steps as text: for every row the piece that it got, mostly not empty. The result is that of the steps. */
export async function* streamText(
  steps: Generation,
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
