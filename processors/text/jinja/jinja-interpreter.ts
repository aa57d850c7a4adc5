import { Environment, Interpreter, parse } from '@huggingface/jinja'
import { errorText } from '../../../lib/error.js'
import { COMPARISONS, FILTERS, TESTS } from './jinja-filters.js'
import { formatPercent, isList, itemsIn, numberOf, STRING_METHODS } from './jinja-strings.js'
import { type JinjaToken, jinjaTokens } from './jinja-tokens.js'
import {
  isTuple,
  type JinjaValue,
  pythonJson,
  pythonText,
  toArray,
  toFloat,
  toFunction,
  toJinja,
  toObject,
  toRuntime,
  toTuple
} from './jinja-values.js'

/** Bounds of one rendering: a chat template comes from a checkpoint, and may be hostile. */
const MAX_STEPS = 1_000_000 // evaluated nodes; an item of a loop counts as five
const MAX_DEPTH = 1000
const MAX_OUTPUT = 20_000_000 // characters
const MAX_RANGE = 100_000 // Source: `MAX_RANGE` of Jinja's sandbox

interface Node {
  readonly type: string
  // biome-ignore lint/suspicious/noExplicitAny: nodes of another package's syntax tree
  readonly [field: string]: any
}

/** The private methods of the interpreter that are overridden. */
interface Internals {
  evaluate(node: Node | undefined, environment: Environment): JinjaValue
  evaluateBlock(statements: readonly Node[], environment: Environment): JinjaValue
  evaluateBinaryExpression(node: Node, environment: Environment): JinjaValue
  evaluateMemberExpression(node: Node, environment: Environment): JinjaValue
  evaluateTestExpression(node: Node, environment: Environment): JinjaValue
  evaluateFor(node: Node, environment: Environment): JinjaValue
  applyFilter(operand: JinjaValue, filter: Node, environment: Environment): JinjaValue
  evaluateArguments(args: readonly Node[], environment: Environment): [JinjaValue[], Map<string, JinjaValue>]
}

const Base = Interpreter as unknown as new (environment: Environment) => Internals

const isText = ({ type }: JinjaValue): boolean => type === 'StringValue'
const isInteger = ({ type }: JinjaValue): boolean => type === 'IntegerValue' || type === 'BooleanValue'

/** `text * n` and `list * n`. */
const repeat = (sequence: JinjaValue, times: number): JinjaValue => {
  const n = Math.max(0, times)
  if (sequence.value.length * n > MAX_OUTPUT) throw new Error(`a sequence of more than ${MAX_OUTPUT} items`)
  return isText(sequence) ? toJinja(sequence.value.repeat(n)) : toArray(Array.from({ length: n }, () => sequence.value).flat())
}

/** The interpreter of @huggingface/jinja with Python's printing, more filters and string methods, and bounded work. */
class PythonInterpreter extends Base {
  private steps = 0
  private depth = 0

  private countSteps(n: number): void {
    this.steps += n
    if (this.steps > MAX_STEPS) throw new Error(`the template takes more than ${MAX_STEPS} steps`)
  }

  private checkSize(value: JinjaValue): JinjaValue {
    if (isText(value) && value.value.length > MAX_OUTPUT) throw new Error(`the template makes more than ${MAX_OUTPUT} characters`)
    return value
  }

  override evaluate(node: Node | undefined, environment: Environment): JinjaValue {
    this.countSteps(1)
    if (++this.depth > MAX_DEPTH) throw new Error(`the template is nested more than ${MAX_DEPTH} levels deep`)
    try {
      return this.checkSize(super.evaluate(node, environment))
    } finally {
      this.depth--
    }
  }

  override evaluateBlock(statements: readonly Node[], environment: Environment): JinjaValue {
    let text = ''
    for (const statement of statements) {
      const value = this.evaluate(statement, environment)
      const isOutput = !['Set', 'Macro', 'Comment'].includes(statement.type)
      if (isOutput) text += pythonText(value)
      if (text.length > MAX_OUTPUT) throw new Error(`the template writes more than ${MAX_OUTPUT} characters`)
    }
    return toJinja(text)
  }

  override evaluateBinaryExpression(node: Node, environment: Environment): JinjaValue {
    const operator = node.operator.value as string
    if (operator === 'and' || operator === 'or') return super.evaluateBinaryExpression(node, environment)
    const compares = COMPARISONS.get(operator)
    const operands = [this.evaluate(node.left, environment), this.evaluate(node.right, environment)] as const
    if (compares) return toJinja(compares(...operands))
    if (operator === '%' && isText(operands[0]))
      return toJinja(formatPercent(operands[0].value, isTuple(operands[1]) ? operands[1].value : [operands[1]]))
    const [x, y] = operands.map(numberOf)
    if (operator === '%' && x !== undefined && y !== undefined) {
      if (y === 0) throw new Error('integer modulo by zero')
      const rest = x % y
      const modulo = rest !== 0 && rest < 0 !== y < 0 ? rest + y : rest // of the sign of y, as in Python
      return operands.some(({ type }) => type === 'FloatValue') ? toFloat(modulo) : toJinja(modulo)
    }
    if (operator === '+' && operands.every(isTuple)) return toTuple(operands.flatMap(({ value }) => value))
    const [left, right] = operands.map((value) => (value.type === 'BooleanValue' ? toJinja(Number(value.value)) : value)) as [JinjaValue, JinjaValue] // biome-ignore format: one line
    if (operator === '~') return toJinja(pythonText(operands[0]) + pythonText(operands[1]))
    if (operator === '*' && (isText(left) || isList(left)) && isInteger(right)) return repeat(left, Number(right.value))
    if (operator === '*' && (isText(right) || isList(right)) && isInteger(left)) return repeat(right, Number(left.value))
    const scope = new Environment(environment)
    scope.setVariable('left', left as never)
    scope.setVariable('right', right as never)
    const operand = (value: string): Node => ({ type: 'Identifier', value })
    return super.evaluateBinaryExpression({ ...node, left: operand('left'), right: operand('right') }, scope)
  }

  override evaluateMemberExpression(node: Node, environment: Environment): JinjaValue {
    const object = this.evaluate(node.object, environment)
    const name = node.computed ? undefined : (node.property.value as string)
    if (isText(object) && name !== undefined && Object.hasOwn(STRING_METHODS, name))
      return toFunction((args) => this.checkSize(toRuntime(STRING_METHODS[name]!(object.value, args))))
    if (object.type === 'ObjectValue' && name === 'items') return toFunction(() => this.filtered('items', object, environment))
    const isWide = node.computed && isText(object) && /[\ud800-\udfff]/.test(object.value)
    const scope = new Environment(environment)
    scope.setVariable('object', (isWide ? toArray(itemsIn(object)) : object) as never) // characters of Python, not UTF-16
    const value = super.evaluateMemberExpression({ ...node, object: { type: 'Identifier', value: 'object' } }, scope)
    return isWide && isList(value) ? toJinja(value.value.map((c: JinjaValue) => c.value).join('')) : value
  }

  private filtered(name: string, operand: JinjaValue, environment: Environment, args: readonly Node[] = []): JinjaValue {
    const plainTests = environment.tests as unknown as Map<string, (...values: readonly JinjaValue[]) => boolean>
    const findTest = (test: string) => {
      const known = Object.hasOwn(TESTS, test) ? TESTS[test] : plainTests.get(test)
      if (known) return known
      throw new Error(`Unknown test: ${test}`)
    }
    return FILTERS[name]!(operand, this.evaluateArguments(args, environment), findTest)
  }

  override applyFilter(operand: JinjaValue, filter: Node, environment: Environment): JinjaValue {
    const isCall = filter.type === 'CallExpression'
    const name = (isCall ? filter.callee.value : filter.value) as string
    const args = (isCall ? filter.args : []) as readonly Node[]
    if (name === 'tojson') {
      const [positional, keyword] = this.evaluateArguments(args, environment)
      const option = (key: string, index?: number) => {
        const value = keyword.get(key) ?? (index === undefined ? undefined : positional[index])
        return value === undefined || value.type === 'NullValue'
          ? undefined
          : isList(value)
            ? value.value.map((v: JinjaValue) => v.value)
            : value.value
      }
      const [indent, ensureAscii] = [option('indent', 1), option('ensure_ascii', 0)]
      return toJinja(
        pythonJson(operand, { indent, ensureAscii, separators: option('separators', 2), sortKeys: option('sort_keys', 3) })
      )
    }
    if (name === 'dictsort') {
      const sorted = super.applyFilter(operand, filter, environment)
      return toArray(sorted.value.map((pair: JinjaValue) => toTuple(pair.value)))
    }
    if (name === 'list' && isList(operand)) this.countSteps(5 * operand.value.length)
    return Object.hasOwn(FILTERS, name)
      ? this.filtered(name, operand, environment, args)
      : super.applyFilter(operand, filter, environment)
  }

  override evaluateTestExpression(node: Node, environment: Environment): JinjaValue {
    if (node.test.value !== 'float') return super.evaluateTestExpression(node, environment)
    const isFloat = this.evaluate(node.operand, environment).type === 'FloatValue'
    return toJinja(node.negate ? !isFloat : isFloat)
  }

  /** Loops over strings and undefined values too. */
  override evaluateFor(node: Node, environment: Environment): JinjaValue {
    const { iterable } = node
    const isSelect = iterable.type === 'SelectExpression'
    const list = {
      type: 'FilterExpression',
      operand: isSelect ? iterable.lhs : iterable,
      filter: { type: 'Identifier', value: 'list' }
    }
    return super.evaluateFor({ ...node, iterable: isSelect ? { ...iterable, lhs: list } : list }, environment)
  }
}

const range = (...bounds: readonly number[]): readonly number[] => {
  const [start, stop, step] = bounds.length === 1 ? [0, bounds[0]!, 1] : [bounds[0]!, bounds[1]!, bounds[2] ?? 1]
  if (step === 0) throw new Error('range: the step is 0')
  const length = Math.max(0, Math.ceil((stop - start) / step))
  if (length > MAX_RANGE) throw new Error(`range: more than ${MAX_RANGE} items`)
  return Array.from({ length }, (_, i) => start + i * step)
}

const name = (date: Date, options: Intl.DateTimeFormatOptions): string => new Intl.DateTimeFormat('en-US', options).format(date)
const two = (n: number): string => String(n).padStart(2, '0')

/** Python's `datetime.now().strftime(format)` in English. */
const strftimeNow = (format: string): string => {
  const now = new Date()
  const parts: Readonly<Record<string, string>> = {
    Y: String(now.getFullYear()),
    y: two(now.getFullYear() % 100),
    m: two(now.getMonth() + 1),
    d: two(now.getDate()),
    e: String(now.getDate()).padStart(2),
    H: two(now.getHours()),
    I: two(now.getHours() % 12 || 12),
    M: two(now.getMinutes()),
    S: two(now.getSeconds()),
    p: now.getHours() < 12 ? 'AM' : 'PM',
    B: name(now, { month: 'long' }),
    b: name(now, { month: 'short' }),
    A: name(now, { weekday: 'long' }),
    a: name(now, { weekday: 'short' }),
    '%': '%'
  }
  return format.replace(/%(-?)(\w|%)/g, (all, unpadded, key) => (unpadded ? parts[key]?.replace(/^[0 ]/, '') : parts[key]) ?? all)
}

/** Variables of every template. Source: `_compile_jinja_template` (transformers 5.24). */
const GLOBALS = {
  true: true,
  false: false,
  none: null,
  True: true,
  False: false,
  None: null,
  range,
  strftime_now: strftimeNow,
  raise_exception: (message: string) => {
    throw new Error(message)
  }
}

/** Python's `dict(mapping, **items)`: a copy of a mapping, or of a list of pairs, with further items. */
const dict = toFunction((args) => {
  const entries = args.flatMap(({ value }): readonly (readonly [string, JinjaValue])[] =>
    value instanceof Map ? [...value] : value.map((pair: JinjaValue) => [pair.value[0].value, pair.value[1]])
  )
  return toObject(new Map(entries))
})

/** A compiled Jinja template, rendered as Python's Jinja2 renders it. Throws the errors of the template and of its bounds. */
export type JinjaTemplate = (variables: Readonly<Record<string, unknown>>) => string

/** The statement or expression up to the token at `last`, as text. */
const excerpt = (tokens: readonly JinjaToken[], last: number): string => {
  const start = tokens.findLastIndex(({ type }, i) => i <= last && (type === 'OpenStatement' || type === 'OpenExpression'))
  const texts = tokens
    .slice(Math.max(0, start), last + 1)
    .map(({ type, value }) => (type === 'StringLiteral' ? `'${value}'` : value))
  return texts.join(' ').slice(-80)
}

/** The syntax tree of tokens. Throws an error that quotes the statement where the parser stopped. */
const parseTokens = (tokens: readonly JinjaToken[]): Node => {
  let last = 0
  const watched = tokens.map(({ type, value }, i) => ({
    value,
    get type() {
      last = Math.max(last, i)
      return type
    }
  }))
  try {
    return parse(watched as never) as unknown as Node
  } catch (error) {
    // the parser ends with a `TypeError` where the template ends too early
    const reason = error instanceof TypeError ? 'the template ends too early' : errorText(error)
    throw new Error(`${reason} (at \`${excerpt(tokens, last)}\`)`)
  }
}

/** Compiles a template with the settings of Transformers (`trim_blocks`, `lstrip_blocks`). Throws for a syntax error. */
export const compileJinja = (source: string): JinjaTemplate => {
  const program = parseTokens(jinjaTokens(source))
  return (variables) => {
    const environment = new Environment()
    for (const [name, value] of Object.entries({ ...GLOBALS, ...variables })) environment.set(name, value)
    environment.variables.set('dict', dict as never)
    return new PythonInterpreter(environment).evaluate(program, environment).value
  }
}
