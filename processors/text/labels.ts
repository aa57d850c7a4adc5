import * as E from 'fp-ts/lib/Either.js'
import { type Issues, invalid, issue, whenValid } from '../../lib/error.js'
import type { ChatTemplate, Prompt, RenderOptions } from './chat-template.js'
import { itemsOf, type Message, type Messages } from './messages.js'
import type { Piece, Tokenizer } from './tokenizer.js'

/** The characters `[start, end)` of a prompt. */
export type Span = readonly [start: number, end: number]

/** The label of positions that no loss counts. Source: `IGNORE_TOKEN_ID` (OpenGVLab), `ignore_index` (PyTorch). */
const IGNORE_INDEX = -100

/** Token ids of a conversation and training labels: the same id at supervised positions, `IGNORE_INDEX` elsewhere. */
export interface LabelledIds {
  readonly ids: readonly number[]
  readonly labels: readonly number[]
}

/** Text of a message, trimmed, since templates may trim message texts. */
const messageText = (message: Message): string =>
  itemsOf(message)
    .map((item) => (item.type === 'text' ? item.text : ''))
    .join('')
    .trim()

/** End of the first special token in `text`. */
const endOfSpecialToken = ({ split, isSpecial }: Tokenizer, text: string): number => {
  let length = 0
  for (const piece of split(text)) {
    length += typeof piece === 'string' ? piece.length : piece.content.length
    if (typeof piece !== 'string' && isSpecial(piece.id)) return length
  }
  return text.length
}

/**
 * The supervised spans of a rendered conversation: each answer, from the end of the turn's header through the special token that
 * ends the turn. Errors: a template that renders earlier turns differently once another turn follows.
 */
export const answerSpans = (
  template: ChatTemplate,
  tokenizer: Tokenizer,
  messages: Messages,
  { text }: Prompt,
  options: RenderOptions,
  where: string
): E.Either<Issues, readonly Span[]> => {
  const spans: Span[] = []
  for (const [i, message] of messages.entries()) {
    if (message.role !== 'assistant') continue
    const header = template.render(messages.slice(0, i), [], { ...options, addGenerationPrompt: true })
    if (E.isLeft(header)) return header
    const start = header.right.text.length
    const answer = messageText(message)
    const answerStart = text.indexOf(answer, start)
    if (!text.startsWith(header.right.text) || answerStart < 0)
      return invalid('ChatTemplate', `${where}[${i}]: the chat template changes earlier turns, so its answer cannot be found.`)
    const end = answerStart + answer.length
    spans.push([start, end + endOfSpecialToken(tokenizer, text.slice(end))])
  }
  return E.right(spans)
}

/** The characters `[from, to)` of a prompt, as a prompt. */
const slicePrompt = ({ text, spans }: Prompt, from: number, to: number): Prompt => ({
  text: text.slice(from, to),
  spans: spans.flatMap(([start, end, isAssistant]) =>
    start < to && from < end ? [[Math.max(start, from) - from, Math.min(end, to) - from, isAssistant] as const] : []
  )
})

/** Splits a prompt at spans: `[before, span, before, …, after the last]`. */
export const splitAtSpans = (prompt: Prompt, spans: readonly Span[]): readonly Prompt[] => {
  const edges = [0, ...spans.flat(), prompt.text.length]
  return edges.slice(1).map((to, i) => slicePrompt(prompt, edges[i]!, to))
}

/** Pieces of an answer and of the prompt since the answer before. */
export interface Turn {
  readonly before: readonly Piece[]
  readonly answer: readonly Piece[]
}

/** An empty piece, which keeps the texts on both sides from being joined. */
const BOUNDARY: Piece = { id: 0, count: 0 }

/**
 * Ids of the two parts of a turn. The tokenizer may not merge text across their boundary, because at inference the model
 * generates the answer after the encoded prompt.
 */
const encodeTurn = ({ encodePieces }: Tokenizer, { before, answer }: Turn, isFirst: boolean) => {
  const encode = (pieces: readonly Piece[]) => encodePieces(isFirst ? pieces : [BOUNDARY, ...pieces], { addSpecialTokens: false })
  const prompt = encode(before)
  if (answer.length === 0) return [prompt, []] as const
  const joined = encode([...before, ...answer])
  const isUnmerged = prompt.every((id, i) => joined[i] === id)
  const answerIds = isUnmerged ? joined.slice(prompt.length) : encodePieces([BOUNDARY, ...answer], { addSpecialTokens: false })
  return [prompt, answerIds] as const
}

/** Ids that a tokenizer adds before and after every text. */
const affixes = ({ encodePieces }: Tokenizer): readonly [readonly number[], readonly number[]] => {
  const marker = -1
  const ids = encodePieces([{ id: marker, count: 1 }])
  const at = ids.indexOf(marker)
  return [ids.slice(0, at), ids.slice(at + 1)]
}

/** Ids and training labels of a conversation's turns. */
export const encodeTurns = (tokenizer: Tokenizer, turns: readonly Turn[], addSpecialTokens: boolean): LabelledIds => {
  const [prefix, suffix] = addSpecialTokens ? affixes(tokenizer) : [[], []]
  const parts = turns.map((turn, i) => encodeTurn(tokenizer, turn, i === 0))
  const ignore = (ids: readonly number[]) => ids.map(() => IGNORE_INDEX)
  return {
    ids: [...prefix, ...parts.flatMap(([prompt, answer]) => [...prompt, ...answer]), ...suffix],
    labels: [...ignore(prefix), ...parts.flatMap(([prompt, answer]) => [...ignore(prompt), ...answer]), ...ignore(suffix)]
  }
}

/** Checks that a conversation ends with an answer and that no answer is empty. */
export const checkAnswers = (messages: Messages, where: string): E.Either<Issues, Messages> => {
  const empty = messages.flatMap((message, i) => {
    if (message.role !== 'assistant' || messageText(message) !== '') return []
    return [issue('EmptyAnswer', `${where}[${i}]: the answer is empty; there is nothing to train on.`)]
  })
  const last = messages.at(-1)?.role
  const open = last === 'assistant' ? [] : [issue('NoAnswer', `${where}: the conversation ends without an answer (${last}).`)]
  return whenValid([...empty, ...open], () => messages)
}
