import type { LabelledBox } from '../processors/image/draw.js'
import type { Tokenizer } from '../processors/text/tokenizer.js'

/** Corners of a box in thousandths of the image's width and height, as InternVL writes them. */
export type Corners = readonly [x1: number, y1: number, x2: number, y2: number]

/** A labelled object with one or several boxes. */
export interface Grounding {
  readonly label: string
  readonly boxes: readonly Corners[]
}

export interface ParsedGrounding {
  readonly groundings: readonly Grounding[]
  /** One sentence for each malformed grounding. */
  readonly problems: readonly string[]
}

const fullScale = 1000

/** `<ref>name</ref><box>[[x1, y1, x2, y2], …]</box>`. Source: `internvl/conversation` and grounding docs (OpenGVLab/InternVL). */
export const renderGrounding = ({ label, boxes }: Grounding): string =>
  `<ref>${label}</ref><box>[${boxes.map((box) => `[${box.join(', ')}]`).join(', ')}]</box>`

const isBox = (box: unknown): box is Corners =>
  Array.isArray(box) && box.length === 4 && box.every((n) => typeof n === 'number' && Number.isFinite(n))

const excerpt = (text: string): string => JSON.stringify(text.length > 60 ? `${text.slice(0, 57)}...` : text)

/** The boxes of the text between `<box>` and `</box>`: a list of boxes, or the four numbers of one box. */
const parseBoxes = (text: string): { readonly boxes: readonly Corners[]; readonly problems: readonly string[] } => {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return { boxes: [], problems: [`the box ${excerpt(text)} is not [[x1, y1, x2, y2], …]`] }
  }
  const list: readonly unknown[] = isBox(value) ? [value] : Array.isArray(value) ? value : [value]
  const isInRange = (box: Corners): boolean => box.every((n) => n >= 0 && n <= fullScale)
  return {
    boxes: list.filter(isBox).filter(isInRange),
    problems: [
      ...(list.length === 0 ? ['a <box> is empty'] : []),
      ...list.filter((box) => !isBox(box)).map((box) => `the box ${excerpt(JSON.stringify(box))} does not have four numbers`),
      ...list
        .filter(isBox)
        .filter((box) => !isInRange(box))
        .map((box) => `the box [${box.join(', ')}] lies outside 0 to ${fullScale}`)
    ]
  }
}

const anyTag = /<\/?(?:ref|box)>/
const textWithoutTags = `((?:(?!${anyTag.source})[^])*)`
const groundingPattern = new RegExp(`(?:<ref>${textWithoutTags}</ref>${textWithoutTags})?<box>${textWithoutTags}</box>`, 'g')

/**
 * Parses the groundings of a generated text, in order; a box without `<ref>` before it has an empty label. Malformed groundings,
 * truncated ones for example, are left out and reported in `problems`.
 */
export const parseGrounding = (text: string): ParsedGrounding => {
  const found = [...text.matchAll(groundingPattern)].map(([, label = '', , inner = '']) => ({ label, ...parseBoxes(inner) }))
  const outside = text.split(groundingPattern).filter((_, i) => i % 4 === 0) // between the captures
  const broken = outside.flatMap((rest) => {
    const at = rest.search(anyTag)
    return at < 0 ? [] : [`${excerpt(rest.slice(at))} is not a complete <ref>…</ref><box>…</box>`]
  })
  return {
    groundings: found.filter(({ boxes }) => boxes.length > 0).map(({ label, boxes }) => ({ label, boxes })),
    problems: [...found.flatMap(({ problems }) => problems), ...broken]
  }
}

const clamp = (n: number, max: number): number => Math.min(max, Math.max(0, n))

/** Converts groundings to pixels of an image of this size: corners sorted and clamped to the image, one entry for each box. */
export const toPixels = (
  groundings: readonly Grounding[],
  { width, height }: { readonly width: number; readonly height: number }
): readonly LabelledBox[] =>
  groundings.flatMap(({ label, boxes }) =>
    boxes.map(([x1, y1, x2, y2]) => {
      const [x, y] = [
        (n: number) => clamp((n / fullScale) * width, width),
        (n: number) => clamp((n / fullScale) * height, height)
      ]
      const [left, right, top, bottom] = [Math.min(x1, x2), Math.max(x1, x2), Math.min(y1, y2), Math.max(y1, y2)]
      return { label, left: x(left), top: y(top), right: x(right), bottom: y(bottom) }
    })
  )

const groundingTag = /^<\/?(ref|box)>$/

/**
 * Decodes generated ids and keeps `<ref>` and `<box>`: most vocabularies have them as special tokens, which `decode` with
 * `skipSpecialTokens` would drop, as in Transformers.
 */
export const groundedText = ({ decode, isSpecial, tokenOf }: Tokenizer, ids: readonly number[]): string =>
  decode(ids.filter((id) => !isSpecial(id) || groundingTag.test(tokenOf(id) ?? '')))
