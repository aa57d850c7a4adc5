/** Options of a multiple-choice question by letter: `{ A: 'a cat', B: 'a dog' }`. */
export type Choices = Readonly<Record<string, string>>

const letters = [...'ABCDEFGHIJ']

/** Letters without their texts, for rows that do not list their options. */
export const lettersOnly: Choices = Object.fromEntries(letters.map((letter) => [letter, '']))

/** Options as a list or by letter. Undefined for other values, for no options, and for more than 26. */
export const choicesOf = (value: unknown): Choices | undefined => {
  if (typeof value !== 'object' || value === null) return undefined
  const entries: readonly [string, unknown][] = Array.isArray(value)
    ? value.map((option, i) => [String.fromCharCode(65 + i), option])
    : Object.entries(value)
  const isValid = entries.every(([letter, option]) => /^[A-Z]$/.test(letter) && ['string', 'number'].includes(typeof option))
  return isValid && entries.length > 0
    ? Object.fromEntries(entries.map(([letter, option]) => [letter, String(option)]))
    : undefined
}

/** The only letter that stands as a word among the last words of an answer, or that "the answer is" names. */
const letterByWord = (answer: string, choices: Choices): string | undefined => {
  const words = answer
    .replace(/[.()[\],:;!*#{}]/g, ' ')
    .split(/\s+/)
    .filter((word) => word !== '')
  const found = Object.keys(choices).filter((letter) => words.includes(letter))
  if (found.length === 1 && words.indexOf(found[0]!) > words.length - 5) return found[0]
  const stated = /(?:correct\s+)?answer\s+is\s+\**([ABCD])\**/i.exec(answer)?.[1]?.toUpperCase()
  return stated !== undefined && stated in choices ? stated : undefined
}

/** The letter of the only option whose text an answer contains, unless the answer is more than twice as long as all options. */
const letterByText = (answer: string, choices: Choices): string | undefined => {
  const text = answer.toLowerCase()
  const options = Object.entries(choices).map(([letter, option]) => [letter, option.toLowerCase()] as const)
  if ([...text].length > 2 * options.reduce((n, [, option]) => n + [...option].length, 0)) return undefined
  const found = options.filter(([, option]) => text.includes(option))
  return found.length === 1 ? found[0]![0] : undefined
}

/** The letter that an answer chooses; undefined where none or several are named. Source: `can_infer` (VLMEvalKit). */
export const chosenLetter = (answer: string, choices: Choices): string | undefined =>
  letterByWord(answer, choices) ?? letterByText(answer, choices)

/** The letter of an expected answer, which is a letter (`B`, `(B)`, `B.`) or the text of an option. */
export const expectedLetter = (expected: string, choices: Choices): string | undefined => {
  const text = expected.trim()
  const letter = /^\(?([A-Z])[).:]?$/.exec(text)?.[1]
  if (letter !== undefined && letter in choices) return letter
  return Object.keys(choices).find((key) => choices[key]!.trim() === text) ?? chosenLetter(text, choices)
}

/** 1 if the answer chooses the expected option. */
export const choiceMatch = (answer: string, expected: string, choices: Choices): number => {
  const letter = expectedLetter(expected, choices)
  return letter !== undefined && chosenLetter(answer, choices) === letter ? 1 : 0
}
