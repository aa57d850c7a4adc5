import { type JinjaValue, pythonText, toJinja, toTuple } from './jinja-values.js'

export const isList = ({ type }: JinjaValue): boolean => type === 'ArrayValue' || type === 'TupleValue'

/** Items that a loop over a value visits. */
export const itemsIn = (value: JinjaValue): readonly JinjaValue[] => {
  if (isList(value)) return value.value
  if (value.type === 'StringValue') return Array.from(value.value as string, toJinja)
  if (value.type === 'ObjectValue') return [...value.value.keys()].map(toJinja)
  if (value.type === 'UndefinedValue') return []
  throw new Error(`'${value.type.replace('Value', '')}' object is not iterable`)
}

/** Numbers and booleans as numbers; `undefined` for other values. */
export const numberOf = ({ type, value }: JinjaValue): number | undefined =>
  ['IntegerValue', 'FloatValue', 'BooleanValue'].includes(type) ? Number(value) : undefined

/** Python rounds halves to the even neighbour. */
export const roundHalfEven = (x: number, digits: number): number => {
  const [scaled, factor] = [x * 10 ** digits, 10 ** digits]
  const floor = Math.floor(scaled)
  const isHalf = scaled - floor === 0.5
  return (isHalf ? floor + (floor % 2) : Math.round(scaled)) / factor
}

/** A whole number in hexadecimal (`x`, `X`) or octal (`o`) digits. */
const inBase = (number: number, kind: string): string => {
  const digits = Math.trunc(number).toString(kind === 'o' ? 8 : 16)
  return kind === 'X' ? digits.toUpperCase() : digits
}

/** Python's `%` formatting of a string. */
export const formatPercent = (format: string, values: readonly JinjaValue[]): string => {
  const rest = [...values]
  return format.replace(/%(?:%|([-0]*)(\d*)(?:\.(\d+))?([srdifxXo]))/g, (all, flags = '', width = '', precision, kind) => {
    if (all === '%%') return '%'
    const value = rest.shift()
    if (!value) throw new Error('not enough arguments for format string')
    const number = Number(value.value)
    const text =
      kind === 'd' || kind === 'i'
        ? String(Math.trunc(number))
        : kind === 'f'
          ? number.toFixed(Number(precision ?? 6))
          : kind === 'x' || kind === 'X' || kind === 'o'
            ? inBase(number, kind)
            : pythonText(value)
    if (Number(width) > 1000) throw new Error('format: a width of 1000 at most')
    const isLeft = flags.includes('-')
    return isLeft ? text.padEnd(Number(width)) : text.padStart(Number(width), flags.includes('0') && kind !== 's' ? '0' : ' ')
  })
}

/** A field of `str.format` by its format: fill, alignment, width, precision and type. */
const formatField = (value: JinjaValue, format: string): string => {
  const found = /^(?:(.)?([<>^]))?(0)?(\d*)(?:\.(\d+))?([sdfxXo]?)$/u.exec(format)
  if (!found) throw new Error(`format: the format ${format} is not supported`)
  const [, fill, alignment, zero, width = '', precision, kind] = found
  const isNumber = numberOf(value) !== undefined
  const digits = kind === '' && isNumber && precision !== undefined ? 'f' : kind || 's'
  const text =
    digits === 'f'
      ? roundHalfEven(Number(value.value), Number(precision ?? 6)).toFixed(Number(precision ?? 6))
      : formatPercent(`%${digits}`, [value])
  const cut = digits === 's' && precision !== undefined ? Array.from(text).slice(0, Number(precision)).join('') : text
  if (Number(width) > 1000) throw new Error('format: a width of 1000 at most')
  const [character, missing] = [fill ?? (zero ? '0' : ' '), Math.max(0, Number(width) - Array.from(cut).length)]
  const side = alignment ?? (isNumber ? '>' : '<')
  const before = side === '>' ? missing : side === '^' ? Math.floor(missing / 2) : 0
  return character.repeat(before) + cut + character.repeat(missing - before)
}

const WHITESPACE = [...' \t\n\r\f\v\x1c\x1d\x1e\x1f\x85\u00a0\u1680\u2028\u2029\u202f\u205f\u3000', ...Array.from({ length: 11 }, (_, i) => String.fromCharCode(0x2000 + i))] // biome-ignore format: one line

/** Python's `strip` of the characters of a text, whitespace by default, at one end or both. */
export const strip = (text: string, characters: JinjaValue | undefined, side: 'start' | 'end' | 'both' = 'both'): string => {
  const removed = new Set(
    characters === undefined || characters.type === 'NullValue' ? WHITESPACE : Array.from(characters.value as string)
  )
  const letters = Array.from(text)
  const [first, last] = [letters.findIndex((c) => !removed.has(c)), letters.findLastIndex((c) => !removed.has(c))]
  if (first < 0) return ''
  return letters.slice(side === 'end' ? 0 : first, side === 'start' ? undefined : last + 1).join('')
}

export const capitalize = (text: string): string => {
  const [first = '', ...rest] = Array.from(text)
  return first.toUpperCase() + rest.join('').toLowerCase()
}

type Method = (text: string, args: readonly JinjaValue[]) => unknown

/** Whether a text has a letter, and each of its letters is as `change` leaves it. */
const isCase = (text: string, change: (text: string) => string): boolean =>
  change(text) === text && text.toLowerCase() !== text.toUpperCase()

/** The text before a part, the part and the text after it; `otherwise` where the part is absent. */
const around = (text: string, part: string, at: number, otherwise: readonly string[]): JinjaValue =>
  toTuple((at < 0 ? otherwise : [text.slice(0, at), part, text.slice(at + part.length)]).map(toJinja))

/** The index `at` of UTF-16 as an index of characters. Throws an error where the part is absent. */
const indexIn = (text: string, at: number): number => {
  if (at < 0) throw new Error('substring not found')
  return Array.from(text.slice(0, at)).length
}

/** A text of at least `width` characters, with `fill` before or after. */
/** The text in the middle of `width` characters, at most 1000; an odd space is divided as Python divides it. */
export const center = (text: string, width: number, fill = ' '): string => {
  const [total, length] = [Math.min(1000, width), Array.from(text).length]
  if (total <= length) return text
  const left = Math.floor((total - length) / 2) + ((total - length) & total & 1)
  return fill.repeat(left) + text + fill.repeat(total - length - left)
}

const justified = (text: string, args: readonly JinjaValue[], side: 'padStart' | 'padEnd'): string => {
  const missing = Math.min(1000, Number(args[0]!.value)) - Array.from(text).length
  return text[side](text.length + Math.max(0, missing), (args[1]?.value as string | undefined) ?? ' ')
}

/** Python's `rsplit`, from the right. */
const splitRight = (text: string, separator: JinjaValue | undefined, most: number): readonly string[] => {
  const isSpace = separator === undefined || separator.type === 'NullValue'
  const parts = isSpace ? (text.match(/\S+/g) ?? []) : text.split(separator.value)
  if (most < 0 || parts.length <= most + 1) return parts
  const [rest, last] = [parts.slice(0, parts.length - most), parts.slice(parts.length - most)]
  const joined = isSpace ? text.replace(new RegExp(`(?:\\s+\\S+){${most}}\\s*$`), '') : rest.join(separator.value)
  return [joined, ...last]
}

/** String methods of Python that @huggingface/jinja lacks, or that differ from Python's there. */
export const STRING_METHODS: Readonly<Record<string, Method>> = {
  strip: (text, [characters]) => strip(text, characters),
  lstrip: (text, [characters]) => strip(text, characters, 'start'),
  rstrip: (text, [characters]) => strip(text, characters, 'end'),
  capitalize,
  swapcase: (text) => Array.from(text, (c) => (c === c.toUpperCase() ? c.toLowerCase() : c.toUpperCase())).join(''),
  casefold: (text) => text.toLowerCase().replaceAll('ß', 'ss'),
  zfill: (text, [width]) => {
    const sign = /^[+-]/.exec(text)?.[0] ?? ''
    return sign + text.slice(sign.length).padStart(Math.min(1000, Number(width!.value)) - sign.length, '0')
  },
  ljust: (text, args) => justified(text, args, 'padEnd'),
  rjust: (text, args) => justified(text, args, 'padStart'),
  center: (text, [width, fill]) => center(text, Number(width!.value), fill?.value as string | undefined),
  index: (text, [part]) => indexIn(text, text.indexOf(part!.value)),
  rindex: (text, [part]) => indexIn(text, text.lastIndexOf(part!.value)),
  isupper: (text) => isCase(text, (t) => t.toUpperCase()),
  islower: (text) => isCase(text, (t) => t.toLowerCase()),
  isalnum: (text) => /^[\p{L}\p{N}]+$/u.test(text),
  isnumeric: (text) => /^\p{N}+$/u.test(text),
  isdecimal: (text) => /^\p{Nd}+$/u.test(text),
  partition: (text, [part]) => around(text, part!.value, text.indexOf(part!.value), [text, '', '']),
  rpartition: (text, [part]) => around(text, part!.value, text.lastIndexOf(part!.value), ['', '', text]),
  rsplit: (text, [separator, most]) => splitRight(text, separator, Number(most?.value ?? -1)),
  find: (text, [part]) => text.indexOf(part!.value),
  rfind: (text, [part]) => text.lastIndexOf(part!.value),
  count: (text, [part]) => (part!.value === '' ? text.length + 1 : text.split(part!.value).length - 1),
  join: (text, [items]) =>
    itemsIn(items!)
      .map(({ value }) => value)
      .join(text),
  isdigit: (text) => /^\p{Nd}+$/u.test(text),
  isalpha: (text) => /^\p{L}+$/u.test(text),
  isspace: (text) => /^\s+$/u.test(text),
  splitlines: (text) => (text === '' ? [] : text.replace(/\r?\n$/, '').split(/\r?\n/)),
  removeprefix: (text, [part]) => (text.startsWith(part!.value) ? text.slice(part!.value.length) : text),
  removesuffix: (text, [part]) => (part!.value !== '' && text.endsWith(part!.value) ? text.slice(0, -part!.value.length) : text),
  format: (text, args) => {
    const keyword = args.find(({ type }) => type === 'KeywordArgumentsValue')
    const positional = args.filter((arg) => arg !== keyword)
    let next = 0
    return text.replace(/\{\{|\}\}|\{(\w*)(?::([^{}]*))?\}/g, (all, field: string, format = '') => {
      if (all === '{{' || all === '}}') return all[0]!
      const value = /^\d*$/.test(field) ? positional[field === '' ? next++ : Number(field)] : keyword?.value.get(field)
      if (!value) throw new Error(`format: there is no argument ${field || next - 1}`)
      return formatField(value, format)
    })
  }
}
