import fc from 'fast-check'

/** Numbers at the borders of integer types, of float64, and of what memory holds. */
export const finiteNumbers: fc.Arbitrary<number> = fc.oneof(
  fc.constantFrom(0, -0, 1, -1, 2, 3, 7, 0.5, -0.5, 1e-5, 255, 256, 1000, 4096, 20_000, 65_536, 1e6, 3e7),
  fc.constantFrom(2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 53, 1e12, 1e21, 1e308, -1e308, 5e-324),
  fc.integer({ min: -10, max: 600 })
)

export const numbers: fc.Arbitrary<number> = fc.oneof(
  { weight: 6, arbitrary: finiteNumbers },
  fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY)
)

/** Tokens of chat templates, placeholders, and grounding tokens. */
export const tokens = [
  '<|im_start|>', '<|im_end|>', '<|endoftext|>', '<IMG_CONTEXT>', '<img>', '</img>', '<video>', '<image>', '<ref>', '</ref>',
  '<box>', '</box>', '<box>[[1,2,3,4]]</box>', '<quad>', '</quad>', '<think>', '</think>', '<tool_call>', '<s>', '</s>', '<pad>'
] as const // biome-ignore format: a table

const oddTexts = [
  '', ' ', '\n', '\r\n', '\0', '\ud800', '\udfff', '\ud800\ud800', '\u202e', '\ufeff', '\u200d', '\u0300', '\ufffd', '\uffff',
  'e\u0301', '\u{1f468}\u200d\u{1f469}\u200d\u{1f467}', '\u{10ffff}', '..', '../..', '/dev/zero', '/', 'C:\\', '__proto__', 'constructor',
  'toString', 'NaN', 'null', '-1', '1e999', '{{ 1 }}', '{% if %}', '$&', "$'", '%s', '\\u0000', '"', "'", '`', '\u2028', 'İ', 'ß', 'ﬁ'
] as const // biome-ignore format: a table

/** A short text repeated up to `most` times. */
const repeatedTexts = (most: number): fc.Arbitrary<string> =>
  fc
    .tuple(
      fc.constantFrom('a', ' ', '\n', '1', '.', 'ab ', '<', '\ud83d\ude00', '\u0301', '<|im_end|>', '<IMG_CONTEXT>'),
      fc.nat(most)
    )
    .map(([unit, count]) => unit.repeat(count))

const everyCodeUnit = Array.from({ length: 65_536 }, (_, i) => String.fromCharCode(i)).join('')

/** Short texts: odd Unicode, special tokens, random code points. */
export const shortTexts: fc.Arbitrary<string> = fc
  .array(fc.oneof(fc.constantFrom(...tokens), fc.constantFrom(...oddTexts), fc.string({ unit: 'binary', maxLength: 8 })), {
    maxLength: 5
  })
  .map((parts) => parts.join(''))

/** Texts of a prompt: short ones mostly; one in about thirty has every UTF-16 code unit or is very long. */
export const texts: fc.Arbitrary<string> = fc.oneof(
  { weight: 24, arbitrary: shortTexts },
  { weight: 4, arbitrary: repeatedTexts(2000) },
  { weight: 1, arbitrary: repeatedTexts(200_000) },
  { weight: 1, arbitrary: fc.constant(everyCodeUnit) }
)

/** Values of JSON; numbers include NaN, which Python writes. */
export const values: fc.Arbitrary<unknown> = fc.oneof(
  { weight: 6, arbitrary: numbers },
  { weight: 4, arbitrary: fc.constantFrom<unknown>(null, true, false, [], {}, [[]], [null], { a: [] }, [{}], '') },
  { weight: 3, arbitrary: shortTexts },
  { weight: 2, arbitrary: fc.array(numbers, { maxLength: 4 }) },
  { weight: 1, arbitrary: fc.jsonValue({ maxDepth: 3 }) }
)
