import * as E from 'fp-ts/lib/Either.js'
import { type Issues, issue, whenValid } from '../../lib/error.js'
import { invalid } from '../collect.js'
import type { ChatTemplate, Prompt, RenderOptions } from './chat-template.js'
import { itemsOf, type Message, type Messages } from './messages.js'
import type { Piece, Tokenizer } from './tokenizer.js'

/** A stretch `[start, end)` of a prompt. */
export type Stretch = readonly [start: number, end: number]

/** A label that no loss counts. Source: `IGNORE_TOKEN_ID` (OpenGVLab), `ignore_index` (PyTorch). */
export const IGNORED = -100

/** Ids of a conversation, and for each the same id where it is learned, −100 where it is not. */
export interface Labelled {
  readonly ids: readonly number[]
  readonly labels: readonly number[]
}

const textOf = (message: Message): string =>
  itemsOf(message)
    .map((item) => (item.type === 'text' ? item.text : ''))
    .join('')
    .trim() // a template may trim what people write

/** Where a text's first special token ends. */
const afterSpecial = ({ split, isSpecial }: Tokenizer, text: string): number => {
  let length = 0
  for (const piece of split(text)) {
    length += typeof piece === 'string' ? piece.length : piece.content.length
    if (typeof piece !== 'string' && isSpecial(piece.id)) return length
  }
  return text.length
}

/**
 * What of a rendered conversation the model is to write itself: each answer, from the end of its turn's head to the special token
 * that ends the turn, included. Errors: a template that writes a turn otherwise once another follows.
 */
export const answersIn = (
  template: ChatTemplate,
  tokenizer: Tokenizer,
  messages: Messages,
  { text }: Prompt,
  options: RenderOptions,
  where: string
): E.Either<Issues, readonly Stretch[]> => {
  const stretches: Stretch[] = []
  for (const [i, message] of messages.entries()) {
    if (message.role !== 'assistant') continue
    const head = template.render(messages.slice(0, i), [], { ...options, addGenerationPrompt: true })
    if (E.isLeft(head)) return head
    const start = head.right.text.length
    const said = text.indexOf(textOf(message), start)
    if (!text.startsWith(head.right.text) || said < 0)
      return invalid('ChatTemplate', `${where}[${i}]: the chat template changes earlier turns, so its answer can't be found.`)
    const end = said + textOf(message).length
    stretches.push([start, end + afterSpecial(tokenizer, text.slice(end))])
  }
  return E.right(stretches)
}

/** A prompt's stretch, as a prompt. */
const cutOut = ({ text, spans }: Prompt, from: number, to: number): Prompt => ({
  text: text.slice(from, to),
  spans: spans.flatMap(([start, end]) =>
    start < to && from < end ? [[Math.max(start, from) - from, Math.min(end, to) - from] as const] : []
  )
})

/** A prompt cut at its answers: `[before, answer, before, …, after the last]`. */
export const cutAtAnswers = (prompt: Prompt, answers: readonly Stretch[]): readonly Prompt[] => {
  const edges = [0, ...answers.flat(), prompt.text.length]
  return edges.slice(1).map((to, i) => cutOut(prompt, edges[i]!, to))
}

/** What stands before an answer, and the answer. */
export interface Turn {
  readonly before: readonly Piece[]
  readonly answer: readonly Piece[]
}

/** Nothing, but between two texts it keeps them two. */
const seam: Piece = { id: 0, times: 0 }

/**
 * Ids of a turn's two parts. Where the tokenizer would join the end of the one with the beginning of the other, they stay apart,
 * as they are when the model answers.
 */
const encodeTurn = ({ encodePieces }: Tokenizer, { before, answer }: Turn, first: boolean) => {
  const encode = (pieces: readonly Piece[]) => encodePieces(first ? pieces : [seam, ...pieces], { addSpecialTokens: false })
  const head = encode(before)
  if (answer.length === 0) return [head, []] as const
  const joined = encode([...before, ...answer])
  const kept = head.every((id, i) => joined[i] === id)
  return [head, kept ? joined.slice(head.length) : encodePieces([seam, ...answer], { addSpecialTokens: false })] as const
}

/** Ids that a tokenizer sets before and after every text. */
const affixes = ({ encodePieces }: Tokenizer): readonly [readonly number[], readonly number[]] => {
  const around = encodePieces([{ id: -1, times: 1 }])
  const at = around.indexOf(-1)
  return [around.slice(0, at), around.slice(at + 1)]
}

/** Ids and labels of a conversation's turns. */
export const labelled = (tokenizer: Tokenizer, turns: readonly Turn[], addSpecialTokens: boolean): Labelled => {
  const [prefix, suffix] = addSpecialTokens ? affixes(tokenizer) : [[], []]
  const parts = turns.map((turn, i) => encodeTurn(tokenizer, turn, i === 0))
  const hide = (ids: readonly number[]) => ids.map(() => IGNORED)
  return {
    ids: [...prefix, ...parts.flatMap(([head, answer]) => [...head, ...answer]), ...suffix],
    labels: [...hide(prefix), ...parts.flatMap(([head, answer]) => [...hide(head), ...answer]), ...hide(suffix)]
  }
}

/** A conversation that ends with an answer, and whose answers all say something; or what is wrong with it. */
export const checkAnswers = (messages: Messages, where: string): E.Either<Issues, Messages> => {
  const empty = messages.flatMap((message, i) => {
    if (message.role !== 'assistant' || textOf(message) !== '') return []
    return [issue('EmptyAnswer', `${where}[${i}]: the answer is empty; there is nothing to learn.`)]
  })
  const last = messages.at(-1)?.role
  const open = last === 'assistant' ? [] : [issue('NoAnswer', `${where}: the conversation ends without an answer (${last}).`)]
  return whenValid([...empty, ...open], () => messages)
}
