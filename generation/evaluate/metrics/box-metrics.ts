import { type Corners, parseGrounding } from '../../grounding.js'

const area = ([x1, y1, x2, y2]: Corners): number => Math.max(0, x2 - x1) * Math.max(0, y2 - y1)

/** Intersection over union of two boxes; 0 where neither has an area. */
export const boxIou = (a: Corners, b: Corners): number => {
  const overlap = area([Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])])
  const union = area(a) + area(b) - overlap
  return union > 0 ? overlap / union : 0
}

const number = String.raw`\s*(-?\d+(?:\.\d+)?)\s*`
const plainBox = new RegExp(String.raw`\[${number},${number},${number},${number}\]`, 'g')

/** The boxes of a text: those in `<box>` tags, else every list of four numbers in brackets, such as `[[10, 20, 30, 40]]`. */
export const boxesOf = (text: string): readonly Corners[] => {
  const tagged = parseGrounding(text).groundings.flatMap(({ boxes }) => boxes)
  if (tagged.length > 0) return tagged
  return [...text.matchAll(plainBox)].map(([, ...corners]) => corners.map(Number) as unknown as Corners)
}

/**
 * IoU of the expected boxes with those of the answer. Pairs are formed one to one, the best first; an expected box without a partner has 0.
 * Of a question for one box the first box of the answer counts, as in RefCOCO. Empty where no box is expected.
 */
export const matchedIous = (answer: string, expected: string): readonly number[] => {
  const [found, targets] = [boxesOf(answer), boxesOf(expected)]
  const candidates = targets.length === 1 ? found.slice(0, 1) : found
  const pairs = targets
    .flatMap((target, t) => candidates.map((box, c) => ({ t, c, iou: boxIou(target, box) })))
    .sort((a, b) => b.iou - a.iou)
  const [ious, used] = [new Map<number, number>(), new Set<number>()]
  for (const { t, c, iou } of pairs) {
    if (ious.has(t) || used.has(c)) continue
    ious.set(t, iou)
    used.add(c)
  }
  return targets.map((_, t) => ious.get(t) ?? 0)
}

const mean = (values: readonly number[]): number => values.reduce((sum, x) => sum + x, 0) / values.length

/**
 * Share of the expected boxes that the answer has with an IoU of at least `threshold`; for one expected box 0 or 1, which RefCOCO reports as
 * precision@1. Source: `evaluate_grounding.py` (OpenGVLab/InternVL).
 */
export const boxAccuracy = (answer: string, expected: string, threshold = 0.5): number =>
  mean(matchedIous(answer, expected).map((iou) => (iou >= threshold ? 1 : 0)))

/** Mean IoU of the expected boxes. */
export const meanIou = (answer: string, expected: string): number => mean(matchedIous(answer, expected))
