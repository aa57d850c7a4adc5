import { tokenize } from '@huggingface/jinja'

/** A token of @huggingface/jinja. */
export interface JinjaToken {
  readonly value: string
  readonly type: string
}

/** Filters into which constructs of Jinja become that the parser lacks. No template can write these names. */
export const TEST_FILTER = 'is <test>'
export const NOT_TEST_FILTER = 'is not <test>'
export const TUPLE_FILTER = '(item,)'

const MAX_TOKENS = 200_000 // a chain of comparisons evaluates its inner operands twice
const MAX_BRACKETS = 100 // levels of nested brackets

const token = (type: string, value: string): JinjaToken => ({ type, value })
const [open, close, comma] = [token('OpenParen', '('), token('CloseParen', ')'), token('Comma', ',')]
const name = (value: string): JinjaToken => token('Identifier', value)
const pipe = token('Pipe', '|')

const isName = (t: JinjaToken | undefined, ...names: readonly string[]): boolean =>
  t?.type === 'Identifier' && names.includes(t.value)
const opens = (t: JinjaToken | undefined): boolean => t?.type.startsWith('Open') ?? false
const closes = (t: JinjaToken | undefined): boolean => t?.type.startsWith('Close') ?? false

/** Index of the bracket that closes the one at `start`, or of the last token. */
const closing = (tokens: readonly JinjaToken[], start: number): number => {
  let depth = 0
  for (let i = start; i < tokens.length; i++) {
    if (opens(tokens[i])) depth++
    else if (closes(tokens[i]) && --depth === 0) return i
  }
  return tokens.length - 1
}

/** The tokens. Throws where brackets are nested too deeply. */
const checkNesting = (tokens: readonly JinjaToken[]): readonly JinjaToken[] => {
  let depth = 0
  for (const t of tokens) {
    depth = opens(t) ? depth + 1 : closes(t) ? Math.max(0, depth - 1) : depth
    if (depth > MAX_BRACKETS) throw new Error(`an expression is nested more than ${MAX_BRACKETS} levels deep`)
  }
  return tokens
}

// Source: `integer_re` and `float_re` of jinja2/lexer.py
const DIGITS = '(?:\\d+_)*\\d+'
const NUMBER = new RegExp(
  `^[+-]?(?:0b(?:_?[01])+|0o(?:_?[0-7])+|0x(?:_?[\\da-f])+|${DIGITS}(?:\\.${DIGITS})?(?:e[+-]?${DIGITS})?)$`,
  'i'
)

/** A number as the parser reads it: in base ten, a float with a point, without underscores. */
const decimal = (parts: readonly JinjaToken[]): string => {
  const text = parts.map(({ value }) => value.replaceAll('_', '')).join('')
  const [, sign = '', digits] = /^([+-]?)(0[box].*)$/i.exec(text) ?? []
  if (digits !== undefined) return sign + Number(digits)
  return text.includes('.') ? text : text.replace(/e/i, '.e')
}

/** Numbers that the lexer cuts into a number and a name: `1e3`, `1.5E-7`, `1_000`, `0x1f`. */
const joinNumbers = (tokens: readonly JinjaToken[]): readonly JinjaToken[] => {
  const joined: JinjaToken[] = []
  for (let i = 0; i < tokens.length; i++) {
    const first = tokens[i]!
    const following = tokens.slice(i + 1, i + 6)
    const length =
      first.type === 'NumericLiteral' && following[0]?.type === 'Identifier'
        ? [5, 4, 3, 2, 1].find((n) => NUMBER.test([first, ...following.slice(0, n)].map(({ value }) => value).join('')))
        : undefined
    joined.push(length === undefined ? first : token('NumericLiteral', decimal(tokens.slice(i, i + length + 1))))
    i += length ?? 0
  }
  return joined
}

/** Index after the argument of a test without brackets: a literal, a name or a bracketed expression, with what follows on it. */
const argumentEnd = (tokens: readonly JinjaToken[], start: number): number => {
  let end = opens(tokens[start]) ? closing(tokens, start) + 1 : start + 1
  while (tokens[start]!.type === 'StringLiteral' && tokens[end]?.type === 'StringLiteral') end++
  for (;;) {
    if (tokens[end]?.type === 'Dot') end += 2
    else if (['OpenParen', 'OpenSquareBracket'].includes(tokens[end]?.type ?? '')) end = closing(tokens, end) + 1
    else return end
  }
}

const ARGUMENT_TYPES = ['Identifier', 'StringLiteral', 'NumericLiteral', 'OpenSquareBracket', 'OpenCurlyBracket']
const NO_ARGUMENT = ['else', 'or', 'and', 'is', 'if', 'in', 'not']

/** `x is divisibleby 3` and `x is divisibleby(3)` become a filter with the test's name and argument. Source: `parse_test` (jinja2). */
const testsToFilters = (tokens: readonly JinjaToken[]): readonly JinjaToken[] => {
  const result: JinjaToken[] = []
  for (let i = 0; i < tokens.length; i++) {
    const isNegated = isName(tokens[i + 1], 'not')
    const at = i + (isNegated ? 2 : 1)
    const [test, next] = [tokens[at], tokens[at + 1]]
    const hasBrackets = next?.type === 'OpenParen'
    const hasArgument = hasBrackets || (ARGUMENT_TYPES.includes(next?.type ?? '') && !isName(next, ...NO_ARGUMENT))
    if (!isName(tokens[i], 'is') || tokens[i - 1]?.type === 'Dot' || test?.type !== 'Identifier' || !hasArgument) {
      result.push(tokens[i]!)
      continue
    }
    const end = hasBrackets ? closing(tokens, at + 1) + 1 : argumentEnd(tokens, at + 1)
    const args = testsToFilters(hasBrackets ? tokens.slice(at + 2, end - 1) : tokens.slice(at + 1, end))
    const separator = args.length > 0 ? [comma] : []
    result.push(pipe, name(isNegated ? NOT_TEST_FILTER : TEST_FILTER), open, token('StringLiteral', test.value), ...separator)
    result.push(...args, close)
    i = end - 1
  }
  return result
}

const OPERAND_ENDS = ['Comma', 'Colon', 'Equals', 'Text', 'Comment']
const KEYWORDS = ['and', 'or', 'if', 'else', 'elif', 'set', 'for']

/** Number of tokens of the comparison operator at an index: 0 if there is none. */
const comparisonLength = (tokens: readonly JinjaToken[], i: number): number => {
  if (tokens[i - 1]?.type === 'Dot') return 0
  if (isName(tokens[i], 'not') && isName(tokens[i + 1], 'in')) return 2
  return tokens[i]?.type === 'ComparisonBinaryOperator' || isName(tokens[i], 'in') ? 1 : 0
}

const endsOperand = (tokens: readonly JinjaToken[], i: number): boolean =>
  OPERAND_ENDS.includes(tokens[i]!.type) ||
  (tokens[i - 1]?.type !== 'Dot' &&
    (isName(tokens[i], ...KEYWORDS) || (isName(tokens[i], 'not') && !isName(tokens[i - 1], 'is'))))

/**
 * `a < b < c` becomes `(a < b and b < c)`, in all brackets. The parser would compare `a < b` with `c`. Source: `parse_compare` (jinja2).
 */
const chainsToPairs = (tokens: readonly JinjaToken[]): readonly JinjaToken[] => {
  const result: JinjaToken[] = []
  let [operands, operators]: [JinjaToken[][], (readonly JinjaToken[])[]] = [[[]], []]
  const flush = (): void => {
    const pairs = operators.map((operator, i) => [...operands[i]!, ...operator, ...operands[i + 1]!])
    const chain = pairs.flatMap((pair, i) => (i === 0 ? pair : [name('and'), ...pair]))
    result.push(...(pairs.length > 1 ? [open, ...chain, close] : (pairs[0] ?? operands[0]!)))
    if (result.length > MAX_TOKENS) throw new Error(`the template has more than ${MAX_TOKENS} tokens`)
    ;[operands, operators] = [[[]], []]
  }
  for (let i = 0; i < tokens.length; i++) {
    const length = comparisonLength(tokens, i)
    if (opens(tokens[i])) {
      const end = closing(tokens, i)
      operands.at(-1)!.push(tokens[i]!, ...chainsToPairs(tokens.slice(i + 1, end)))
      if (end > i) operands.at(-1)!.push(tokens[end]!)
      i = end
    } else if (length > 0) {
      operators.push(tokens.slice(i, i + length))
      operands.push([])
      i += length - 1
    } else if (endsOperand(tokens, i)) {
      flush()
      result.push(tokens[i]!)
    } else operands.at(-1)!.push(tokens[i]!)
  }
  flush()
  return result
}

const OPERATOR_NAMES = [...KEYWORDS, 'in', 'not', 'is']

/** Whether a bracket after a token calls a function, a filter or a test. */
const isCalled = (before: JinjaToken | undefined, beforeThat: JinjaToken | undefined): boolean =>
  ['CloseParen', 'CloseSquareBracket'].includes(before?.type ?? '') ||
  (before?.type === 'Identifier' && (beforeThat?.type === 'Dot' || !OPERATOR_NAMES.includes(before.value)))

/** `(a,)` becomes `((a) | tuple)`, `(a, b,)` becomes `(a, b)`, and `()` becomes `([] | tuple)`. */
const tuples = (tokens: readonly JinjaToken[]): readonly JinjaToken[] => {
  const result: JinjaToken[] = []
  for (let i = 0; i < tokens.length; i++) {
    const end = tokens[i]!.type === 'OpenParen' ? closing(tokens, i) : i
    const inside = tokens.slice(i + 1, end)
    const hasComma = inside.at(-1)?.type === 'Comma'
    if (end === i || isCalled(tokens[i - 1], tokens[i - 2]) || !(hasComma || inside.length === 0)) {
      result.push(tokens[i]!)
      continue
    }
    const items = tuples(hasComma ? inside.slice(0, -1) : inside)
    let depth = 0
    const isOne = items.every((t) => {
      depth += opens(t) ? 1 : closes(t) ? -1 : 0
      return depth > 0 || t.type !== 'Comma'
    })
    if (inside.length === 0) result.push(open, token('OpenSquareBracket', '['), token('CloseSquareBracket', ']'))
    else if (isOne) result.push(open, token('OpenSquareBracket', '['), ...items, token('CloseSquareBracket', ']'))
    else result.push(open, ...items)
    if (inside.length === 0 || isOne) result.push(pipe, name(TUPLE_FILTER))
    result.push(close)
    i = end
  }
  return result
}

/**
 * Tokens of a template with the settings of Transformers (`trim_blocks`, `lstrip_blocks`). Constructs of Jinja that the parser of
 * @huggingface/jinja lacks are rewritten: numbers such as `1e3`, tests with an argument, chains of comparisons, and tuples of one item.
 */
export const jinjaTokens = (source: string): readonly JinjaToken[] =>
  tuples(chainsToPairs(testsToFilters(joinNumbers(checkNesting(tokenize(source, { lstrip_blocks: true, trim_blocks: true }))))))
