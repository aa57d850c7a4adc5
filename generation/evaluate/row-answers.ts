import { isRecord } from '../../lib/plain-object.js'

type Json = Readonly<Record<string, unknown>>

/** A text, a number as text, or the `answer` of an object as in VQAv2. */
const answerText = (value: unknown): string | undefined => {
  const text = isRecord(value) ? value.answer : value
  return typeof text === 'string' || typeof text === 'number' ? String(text) : undefined
}

/**
 * The correct answers of a row: the list `answers` or `answer`, of texts or of objects with `answer`. An empty list for a row without a list;
 * undefined for a list with other values.
 */
export const answerList = ({ answers, answer }: Json): readonly string[] | undefined => {
  const value = [answers, answer].find(Array.isArray) ?? []
  const list = value.map(answerText)
  return list.every((text) => text !== undefined) ? list : undefined
}

/** The expected answer of a row with a question: `answer`, or the first of several. */
export const firstAnswer = (json: Json): string | undefined => answerText(json.answer) ?? answerList(json)?.[0]
