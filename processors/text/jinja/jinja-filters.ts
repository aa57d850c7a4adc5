import { capitalize, center, formatPercent, isList, itemsIn, numberOf, roundHalfEven, strip } from './jinja-strings.js'
import { NOT_TEST_FILTER, TEST_FILTER, TUPLE_FILTER } from './jinja-tokens.js'
import { type JinjaValue, pythonRepr, pythonText, toArray, toFloat, toJinja, toTuple } from './jinja-values.js'

type Arguments = readonly [positional: readonly JinjaValue[], keyword: ReadonlyMap<string, JinjaValue>]
type Test = (value: JinjaValue, ...args: readonly JinjaValue[]) => boolean
export type FindTest = (name: string) => Test

const attributeOf = (value: JinjaValue, path: string): JinjaValue =>
  path.split('.').reduce<JinjaValue>((at, key) => {
    if (at.type === 'ObjectValue') return at.value.get(key) ?? toJinja(undefined)
    return isList(at) ? (at.value[Number(key)] ?? toJinja(undefined)) : toJinja(undefined)
  }, value)

const escapeHtml = (text: string): string =>
  text.replace(/[&<>'"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', "'": '&#39;', '"': '&#34;' })[c]!)

/** Python's `==`. */
const isEqual = (a: JinjaValue, b: JinjaValue): boolean => {
  const [x, y] = [numberOf(a), numberOf(b)]
  if (x !== undefined || y !== undefined) return x === y
  if (isList(a) && isList(b))
    return a.value.length === b.value.length && a.value.every((item: JinjaValue, i: number) => isEqual(item, b.value[i]))
  if (a.type === 'ObjectValue' && b.type === 'ObjectValue')
    return (
      a.value.size === b.value.size && [...a.value].every(([key, item]) => b.value.has(key) && isEqual(item, b.value.get(key)))
    )
  return a.type === b.type && a.value === b.value
}

/** Python's order of two numbers or two strings: below 0, 0 or above 0. */
const order = (a: JinjaValue, b: JinjaValue): number => {
  if (isList(a) && isList(b)) {
    const at = a.value.findIndex((item: JinjaValue, i: number) => i < b.value.length && !isEqual(item, b.value[i]))
    return at < 0 ? a.value.length - b.value.length : order(a.value[at], b.value[at])
  }
  const [x, y] = [numberOf(a) ?? a.value, numberOf(b) ?? b.value]
  if (typeof x !== typeof y || !['number', 'string'].includes(typeof x))
    throw new Error(`'${a.type.replace('Value', '')}' and '${b.type.replace('Value', '')}' have no order`)
  return x < y ? -1 : x > y ? 1 : 0
}

const isIn = (value: JinjaValue, container: JinjaValue): boolean =>
  container.type === 'StringValue' && value.type === 'StringValue'
    ? container.value.includes(value.value)
    : itemsIn(container).some((item) => isEqual(item, value))

/** Comparison operators. */
export const COMPARISONS: ReadonlyMap<string, (a: JinjaValue, b: JinjaValue) => boolean> = new Map([
  ['==', isEqual],
  ['!=', (a, b) => !isEqual(a, b)],
  ['<', (a, b) => order(a, b) < 0],
  ['<=', (a, b) => order(a, b) <= 0],
  ['>', (a, b) => order(a, b) > 0],
  ['>=', (a, b) => order(a, b) >= 0],
  ['in', isIn],
  ['not in', (a, b) => !isIn(a, b)]
])

/** A test with one argument. */
const binaryTest =
  (name: string, test: (value: JinjaValue, other: JinjaValue) => boolean): Test =>
  (value, ...args) => {
    if (args.length !== 1) throw new Error(`test ${name}: expected one argument, got ${args.length}`)
    return test(value, args[0]!)
  }

const isDivisible: Test = (value, by) => {
  const [x, y] = [numberOf(value), by && numberOf(by)]
  if (x === undefined || !y) throw new Error('test divisibleby: expected two numbers, the second not 0')
  return x % y === 0
}

/** Tests of Jinja with an argument, by all their names. */
export const TESTS: Readonly<Record<string, Test>> = Object.fromEntries(
  (
    [
      ['divisibleby', isDivisible],
      ['eq equalto ==', COMPARISONS.get('==')!],
      ['ne !=', COMPARISONS.get('!=')!],
      ['lt lessthan <', COMPARISONS.get('<')!],
      ['le <=', COMPARISONS.get('<=')!],
      ['gt greaterthan >', COMPARISONS.get('>')!],
      ['ge >=', COMPARISONS.get('>=')!],
      ['in', COMPARISONS.get('in')!],
      ['sameas', (a, b) => a === b || (a.type === b.type && !isList(a) && a.type !== 'ObjectValue' && a.value === b.value)]
    ] as const satisfies readonly (readonly [string, (a: JinjaValue, b: JinjaValue) => boolean])[]
  ).flatMap(([names, test]) => names.split(' ').map((name) => [name, binaryTest(name, test)] as const))
)

const compare = (a: JinjaValue, b: JinjaValue): number => (a.value < b.value ? -1 : a.value > b.value ? 1 : 0)

type Filter = (value: JinjaValue, args: Arguments, findTest: FindTest) => JinjaValue

/** `select` and `reject`: by a named test, or by truth. */
const selecting =
  (isKept: boolean, hasAttribute: boolean): Filter =>
  (value, [positional], findTest) => {
    const attribute = hasAttribute ? positional[0] : undefined
    const [name, ...args] = hasAttribute ? positional.slice(1) : positional
    const test: Test = name ? findTest(name.value) : (item) => item.__bool__().value
    const subject = (item: JinjaValue): JinjaValue => (attribute ? attributeOf(item, attribute.value) : item)
    return toArray(itemsIn(value).filter((item) => test(subject(item), ...args) === isKept))
  }

/** Filters of Jinja that @huggingface/jinja lacks or renders otherwise than Python. */
export const FILTERS: Readonly<Record<string, Filter>> = {
  list: (value) => toArray([...itemsIn(value)]),
  string: (value) => toJinja(pythonText(value)),
  sum: (value, [positional, keyword]) => {
    const attribute = positional[0] ?? keyword.get('attribute')
    const start = positional[1] ?? keyword.get('start')
    const items = itemsIn(value).map((item) =>
      attribute && attribute.type === 'StringValue' ? attributeOf(item, attribute.value) : item
    )
    if (start && isList(start)) return toArray([...start.value, ...items.flatMap((item) => item.value)])
    const total = items.reduce((sum, item) => sum + Number(item.value), Number(start?.value ?? 0))
    return items.some(({ type }) => type === 'FloatValue') ? toFloat(total) : toJinja(total)
  },
  [TEST_FILTER]: (value, [[name, ...args]], findTest) => toJinja(findTest(name!.value)(value, ...args)),
  [NOT_TEST_FILTER]: (value, [[name, ...args]], findTest) => toJinja(!findTest(name!.value)(value, ...args)),
  [TUPLE_FILTER]: (value) => toTuple(value.value),
  min: (value) => itemsIn(value).reduce((a, b) => (compare(b, a) < 0 ? b : a)),
  max: (value) => itemsIn(value).reduce((a, b) => (compare(b, a) > 0 ? b : a)),
  select: selecting(true, false),
  reject: selecting(false, false),
  selectattr: selecting(true, true),
  rejectattr: selecting(false, true),
  round: (value, [positional, keyword]) => {
    const digits = Number((positional[0] ?? keyword.get('precision'))?.value ?? 0)
    const method = (positional[1] ?? keyword.get('method'))?.value ?? 'common'
    if (method === 'common') return toFloat(roundHalfEven(value.value, digits))
    if (method !== 'ceil' && method !== 'floor') throw new Error('method must be common, ceil or floor')
    return toFloat(Math[method as 'ceil' | 'floor'](value.value * 10 ** digits) / 10 ** digits)
  },
  length: (value) => toJinja(itemsIn(value).length),
  count: (value) => toJinja(itemsIn(value).length),
  first: (value) => itemsIn(value)[0] ?? toJinja(undefined),
  last: (value) => itemsIn(value).at(-1) ?? toJinja(undefined),
  trim: (value, [positional, keyword]) => toJinja(strip(pythonText(value), positional[0] ?? keyword.get('chars'))),
  capitalize: (value) => toJinja(capitalize(pythonText(value))),
  slice: (value, [positional, keyword]) => {
    const [items, slices] = [itemsIn(value), Math.max(1, Number(positional[0]?.value ?? 1))]
    const fill = positional[1] ?? keyword.get('fill_with')
    const [size, longer] = [Math.floor(items.length / slices), items.length % slices]
    const start = (i: number): number => i * size + Math.min(i, longer)
    return toArray(
      Array.from({ length: slices }, (_, i) => {
        const slice = items.slice(start(i), start(i + 1))
        return toArray(fill && longer > 0 && i >= longer ? [...slice, fill] : slice)
      })
    )
  },
  truncate: (value, [positional, keyword]) => {
    const option = (at: number, name: string) => (positional[at] ?? keyword.get(name))?.value
    const [length, killsWords] = [Number(option(0, 'length') ?? 255), option(1, 'killwords') ?? false]
    const [end, leeway] = [[...(option(2, 'end') ?? '...')], Number(option(3, 'leeway') ?? 5)]
    const letters = Array.from(pythonText(value))
    if (letters.length <= length + leeway) return value
    const start = letters.slice(0, Math.max(0, length - end.length)).join('')
    const words = start.lastIndexOf(' ') < 0 ? start : start.slice(0, start.lastIndexOf(' '))
    return toJinja((killsWords ? start : words) + end.join(''))
  },
  pprint: (value) => toJinja(pythonRepr(value)),
  reverse: (value) =>
    value.type === 'StringValue' ? toJinja(Array.from(value.value).reverse().join('')) : toArray([...itemsIn(value)].reverse()),
  format: (value, [positional]) => toJinja(formatPercent(value.value, positional)),
  e: (value) => toJinja(escapeHtml(pythonText(value))),
  escape: (value) => toJinja(escapeHtml(pythonText(value))),
  urlencode: (value) => toJinja(encodeURIComponent(pythonText(value)).replaceAll('%2F', '/')),
  wordcount: (value) => toJinja(value.value.match(/\w+/g)?.length ?? 0),
  center: (value, [positional]) => toJinja(center(pythonText(value), Number(positional[0]?.value ?? 80))),
  batch: (value, [positional]) => {
    const [items, size] = [itemsIn(value), Math.max(1, Number(positional[0]?.value ?? 1))]
    return toArray(
      Array.from({ length: Math.ceil(items.length / size) }, (_, i) => toArray(items.slice(i * size, (i + 1) * size)))
    )
  },
  groupby: (value, [positional, keyword]) => {
    const attribute = (positional[0] ?? keyword.get('attribute'))!.value as string
    const groups = new Map<unknown, JinjaValue[]>()
    for (const item of itemsIn(value)) {
      const key = attributeOf(item, attribute).value as unknown
      groups.set(key, [...(groups.get(key) ?? []), item])
    }
    return toArray(
      [...groups].map(([key, items]) => toTuple([toJinja(key), toArray(items)])).sort((a, b) => compare(a.value[0], b.value[0]))
    )
  },
  items: (value) =>
    toArray(
      [...((value.type === 'ObjectValue' ? value.value : new Map()) as Map<string, JinjaValue>)].map(([k, v]) =>
        toTuple([toJinja(k), v])
      )
    ),
  attr: (value, [positional]) => attributeOf(value, String(positional[0]?.value))
}
