import { Environment } from '@huggingface/jinja'

/** A runtime value of @huggingface/jinja, which does not export its classes. */
export interface JinjaValue {
  readonly type: string
  // biome-ignore lint/suspicious/noExplicitAny: the value's type depends on `type`
  readonly value: any
  readonly builtins: ReadonlyMap<string, JinjaValue>
  readonly __bool__: () => { readonly value: boolean }
}

/** Converts a JavaScript value to a runtime value. */
export const toJinja = (value: unknown): JinjaValue => new Environment().set('value', value) as unknown as JinjaValue

/** A runtime value as it is; another value converted. */
export const toRuntime = (value: unknown): JinjaValue =>
  typeof value === 'object' && value !== null && '__bool__' in value ? (value as JinjaValue) : toJinja(value)

const FloatValue = toJinja(0.5).constructor as new (value: number) => JinjaValue
const ArrayValue = toJinja([]).constructor as new (value: readonly JinjaValue[]) => JinjaValue
const ObjectValue = toJinja({}).constructor as new (value: ReadonlyMap<string, JinjaValue>) => JinjaValue
const FunctionValue = toJinja(() => null).constructor as new (f: (args: readonly JinjaValue[]) => JinjaValue) => JinjaValue

export const toFloat = (value: number): JinjaValue => new FloatValue(value)
export const toArray = (values: readonly JinjaValue[]): JinjaValue => new ArrayValue(values)
export const toObject = (entries: ReadonlyMap<string, JinjaValue>): JinjaValue => new ObjectValue(entries)
export const toFunction = (f: (args: readonly JinjaValue[]) => JinjaValue): JinjaValue => new FunctionValue(f)

const tuples = new WeakSet<JinjaValue>()

/** An array that prints as a tuple. */
export const toTuple = (values: readonly JinjaValue[]): JinjaValue => {
  const tuple = toArray(values)
  tuples.add(tuple)
  return tuple
}

export const isTuple = (value: JinjaValue): boolean => value.type === 'TupleValue' || tuples.has(value)

/** Python's `repr` of a float. */
const floatText = (x: number): string => {
  if (Number.isNaN(x)) return 'nan'
  if (!Number.isFinite(x)) return x < 0 ? '-inf' : 'inf'
  const exponent = x === 0 ? 0 : Number(x.toExponential().split('e')[1])
  if (exponent >= -4 && exponent < 16) {
    if (Object.is(x, -0)) return '-0.0'
    const digits =
      exponent < 0
        ? x.toFixed(Math.max(0, x.toExponential().split('e')[0]!.replace(/[-.]/g, '').length - 1 - exponent))
        : String(x)
    return digits.includes('.') ? digits : `${digits}.0`
  }
  const [mantissa, power] = x.toExponential().split('e') as [string, string]
  return `${mantissa}e${power[0]}${power.slice(1).padStart(2, '0')}`
}

const ESCAPES: Readonly<Record<string, string>> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' }

const escapeCharacter = (character: string): string => {
  const code = character.codePointAt(0)!
  return (
    ESCAPES[character] ?? (code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u${code.toString(16).padStart(4, '0')}`)
  )
}

/** Python's `repr` of a string. */
const stringRepr = (text: string): string => {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'"
  const escaped = text.replace(/[\\\p{Cc}\p{Cf}\p{Zl}\p{Zp}\u00a0\ud800-\udfff]/gu, escapeCharacter)
  return quote + (quote === "'" ? escaped.replaceAll("'", "\\'") : escaped) + quote
}

/** Python's `repr` of a value. */
export const pythonRepr = (value: JinjaValue): string => {
  const items = (): string => value.value.map(pythonRepr).join(', ')
  if (value.type === 'StringValue') return stringRepr(value.value)
  if (isTuple(value)) return value.value.length === 1 ? `(${items()},)` : `(${items()})`
  if (value.type === 'ArrayValue') return `[${items()}]`
  if (value.type === 'ObjectValue')
    return `{${[...(value.value as Map<string, JinjaValue>)].map(([key, item]) => `${stringRepr(key)}: ${pythonRepr(item)}`).join(', ')}}`
  return value.type === 'UndefinedValue' ? 'Undefined' : pythonText(value)
}

/** Python's `str` of a value, which `{{ … }}` prints. */
export const pythonText = (value: JinjaValue): string => {
  if (value.type === 'StringValue') return value.value
  if (value.type === 'NullValue') return 'None'
  if (value.type === 'UndefinedValue') return ''
  if (value.type === 'BooleanValue') return value.value ? 'True' : 'False'
  if (value.type === 'IntegerValue')
    return Number.isSafeInteger(value.value) ? String(value.value) : BigInt(value.value).toString()
  if (value.type === 'FloatValue') return floatText(value.value)
  return ['ArrayValue', 'TupleValue', 'ObjectValue'].includes(value.type) ? pythonRepr(value) : String(value)
}

export interface JsonOptions {
  readonly indent?: number | undefined
  readonly ensureAscii?: boolean | undefined
  readonly separators?: readonly [item: string, key: string] | undefined
  readonly sortKeys?: boolean | undefined
}

/** Python's `json.dumps`. Throws for values that are not JSON. */
export const pythonJson = (value: JinjaValue, options: JsonOptions = {}, depth = 0): string => {
  const { indent, ensureAscii = false, sortKeys = false } = options
  const [itemSeparator, keySeparator] = options.separators ?? [indent === undefined ? ', ' : ',', ': ']
  const text = (s: string): string => {
    const json = JSON.stringify(s)
    return ensureAscii ? json.replace(/[\x7f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`) : json
  }
  const wrap = (open: string, items: readonly string[], close: string): string => {
    if (indent === undefined || items.length === 0) return open + items.join(itemSeparator) + close
    const line = (level: number): string => `\n${' '.repeat(indent * level)}`
    return open + line(depth + 1) + items.join(itemSeparator + line(depth + 1)) + line(depth) + close
  }
  const nested = (item: JinjaValue): string => pythonJson(item, options, depth + 1)
  if (value.type === 'NullValue') return 'null'
  if (value.type === 'BooleanValue') return String(value.value)
  if (value.type === 'IntegerValue' || value.type === 'FloatValue') return pythonText(value)
  if (value.type === 'StringValue') return text(value.value)
  if (value.type === 'ArrayValue' || value.type === 'TupleValue') return wrap('[', value.value.map(nested), ']')
  if (value.type !== 'ObjectValue') throw new Error(`Object of type ${value.type.replace('Value', '')} is not JSON serializable`)
  const entries = [...(value.value as Map<string, JinjaValue>)]
  if (sortKeys) entries.sort(([a], [b]) => (a < b ? -1 : 1))
  return wrap(
    '{',
    entries.map(([key, item]) => text(key) + keySeparator + nested(item)),
    '}'
  )
}
