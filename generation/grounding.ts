import type { LabelledBox } from '../processors/image/draw.js'
import type { Tokenizer } from '../processors/text/tokenizer.js'

/** Corners of a box in thousandths of the picture's width and height, as InternVL writes them. */
export type Corners = readonly [x1: number, y1: number, x2: number, y2: number]

/** A named thing and where it is, once or several times. */
export interface Grounding {
  readonly label: string
  readonly boxes: readonly Corners[]
}

export interface ParsedGrounding {
  readonly groundings: readonly Grounding[]
  /** What looks like a grounding and is none, each in a sentence. */
  readonly problems: readonly string[]
}

const whole = 1000

/** `<ref>name</ref><box>[[x1, y1, x2, y2], …]</box>`. Source: `internvl/conversation` and grounding docs (OpenGVLab/InternVL). */
export const renderGrounding = ({ label, boxes }: Grounding): string =>
  `<ref>${label}</ref><box>[${boxes.map((box) => `[${box.join(', ')}]`).join(', ')}]</box>`

const isCorners = (box: unknown): box is Corners =>
  Array.isArray(box) && box.length === 4 && box.every((n) => typeof n === 'number' && Number.isFinite(n))

const excerpt = (text: string): string => JSON.stringify(text.length > 60 ? `${text.slice(0, 57)}...` : text)

/** The boxes of the text between `<box>` and `</box>`: a list of lists, or the four numbers of one. */
const boxesOf = (text: string): { readonly boxes: readonly Corners[]; readonly problems: readonly string[] } => {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return { boxes: [], problems: [`the box ${excerpt(text)} is not [[x1, y1, x2, y2], …]`] }
  }
  const list: readonly unknown[] = isCorners(value) ? [value] : Array.isArray(value) ? value : [value]
  const inside = (box: Corners): boolean => box.every((n) => n >= 0 && n <= whole)
  return {
    boxes: list.filter(isCorners).filter(inside),
    problems: [
      ...(list.length === 0 ? ['a <box> is empty'] : []),
      ...list.filter((box) => !isCorners(box)).map((box) => `the box ${excerpt(JSON.stringify(box))} has not four numbers`),
      ...list
        .filter(isCorners)
        .filter((box) => !inside(box))
        .map((box) => `the box [${box.join(', ')}] lies outside 0 to ${whole}`)
    ]
  }
}

const tag = /<\/?(?:ref|box)>/
const plain = `((?:(?!${tag.source})[^])*)`
const pattern = new RegExp(`(?:<ref>${plain}</ref>${plain})?<box>${plain}</box>`, 'g')

/**
 * The groundings in what a model wrote, in order; a box without a name before it has an empty label. What is broken, cut short
 * for example, is told in `problems` and left out.
 */
export const parseGrounding = (text: string): ParsedGrounding => {
  const found = [...text.matchAll(pattern)].map(([, label = '', , inner = '']) => ({ label, ...boxesOf(inner) }))
  const loose = text.split(pattern).filter((_, i) => i % 4 === 0) // between the captures
  const broken = loose.flatMap((rest) => {
    const at = rest.search(tag)
    return at < 0 ? [] : [`${excerpt(rest.slice(at))} is no whole <ref>…</ref><box>…</box>`]
  })
  return {
    groundings: found.filter(({ boxes }) => boxes.length > 0).map(({ label, boxes }) => ({ label, boxes })),
    problems: [...found.flatMap(({ problems }) => problems), ...broken]
  }
}

const clamp = (n: number, most: number): number => Math.min(most, Math.max(0, n))

/** Groundings in pixels of a picture of that size: corners in order, inside it, one box after another. */
export const toPixels = (
  groundings: readonly Grounding[],
  { width, height }: { readonly width: number; readonly height: number }
): readonly LabelledBox[] =>
  groundings.flatMap(({ label, boxes }) =>
    boxes.map(([x1, y1, x2, y2]) => {
      const [x, y] = [(n: number) => clamp((n / whole) * width, width), (n: number) => clamp((n / whole) * height, height)]
      const [left, right, top, bottom] = [Math.min(x1, x2), Math.max(x1, x2), Math.min(y1, y2), Math.max(y1, y2)]
      return { label, left: x(left), top: y(top), right: x(right), bottom: y(bottom) }
    })
  )

const markup = /^<\/?(ref|box)>$/

/**
 * Text of generated ids with `<ref>` and `<box>` in it: they are special tokens of most vocabularies, and `decode` with
 * `skipSpecialTokens` (as Transformers') drops them with the rest.
 */
export const groundedText = ({ decode, isSpecial, tokenOf }: Tokenizer, ids: readonly number[]): string =>
  decode(ids.filter((id) => !isSpecial(id) || markup.test(tokenOf(id) ?? '')))
