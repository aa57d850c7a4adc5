import { editDistance } from '../../../lib/error.js'

/** Lower case, without white space at both ends, and with one space for each run of white space within. */
const normalized = (text: string): string => text.trim().toLowerCase().split(/\s+/).join(' ')

/** 1 if the answer equals a reference, ignoring white space at both ends. */
export const exactMatch = (answer: string, references: readonly string[]): number =>
  references.some((reference) => answer.trim() === reference.trim()) ? 1 : 0

/** 1 if the answer contains a reference that is not empty, ignoring case and differences in white space. */
export const containsMatch = (answer: string, references: readonly string[]): number => {
  const text = normalized(answer)
  return references.map(normalized).some((reference) => reference !== '' && text.includes(reference)) ? 1 : 0
}

const codePoints = (text: string): number => [...text.toUpperCase()].length

/**
 * Average normalized Levenshtein similarity (ANLS): 1 − distance / length with the nearest reference, 0 below a similarity of 0.5. DocVQA and
 * InfographicVQA report its mean. Source: Biten et al. 2019; `anls` (lmms-eval).
 */
export const anls = (answer: string, references: readonly string[]): number => {
  const distances = references.map((reference) => {
    const length = Math.max(codePoints(reference), codePoints(answer))
    return length === 0 ? 0 : editDistance(normalized(reference), normalized(answer)) / length
  })
  const similarity = 1 - Math.min(...distances)
  return similarity < 0.5 ? 0 : similarity
}

const numberPattern = /^[+-]?(?:\d+(?:_\d+)*\.?(?:\d+(?:_\d+)*)?|\.\d+(?:_\d+)*)(?:e[+-]?\d+(?:_\d+)*)?$/i

/** The number that Python's `float` reads, a percentage as a fraction; undefined for other texts. */
const numberOf = (text: string): number | undefined => {
  const isPercent = text.endsWith('%')
  const digits = text.replace(/%+$/, '').trim()
  return numberPattern.test(digits) ? Number(digits.replaceAll('_', '')) / (isPercent ? 100 : 1) : undefined
}

/** Whether a number is within 5 % of the reference, or a text equal to the reference without regard to case. */
const isRelaxedMatch = (answer: string, reference: string): boolean => {
  const [value, target] = [numberOf(answer), numberOf(reference)]
  if (value === undefined || !target) return answer.toLowerCase() === reference.toLowerCase()
  return Math.abs(value - target) / Math.abs(target) <= 0.05
}

/**
 * Relaxed accuracy of ChartQA: 1 if a number is within 5 % of a reference, or a text equals a reference without regard to case. Source:
 * Masry et al. 2022, section 5.1; `relaxed_correctness` (lmms-eval).
 */
export const relaxedAccuracy = (answer: string, references: readonly string[]): number =>
  references.some((reference) => isRelaxedMatch(answer.trim(), reference)) ? 1 : 0
