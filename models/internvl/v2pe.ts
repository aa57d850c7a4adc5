import { valueText } from '../../lib/error.js'
/** The position steps (deltas) of V2PE training, one sampled for each image: 1, 1/2, …, 1/256. Source: `v2pe_rnd` (OpenGVLab/V2PE). */
export const visualDeltas: readonly number[] = Array.from({ length: 9 }, (_, k) => 2 ** -k)

/** Throws a `RangeError` for a delta outside (0, 1]. */
const checked = (delta: number): number => {
  if (delta > 0 && delta <= 1) return delta
  throw new RangeError(`visualDelta: expected above 0 and at most 1, got ${valueText(delta)}`)
}

/** Whether token i is the first of consecutive image tokens. */
const startsImage = (ids: readonly number[], imageTokenId: number, i: number): boolean =>
  ids[i] === imageTokenId && ids[i - 1] !== imageTokenId

/** Number of images: groups of consecutive image tokens. */
export const countImages = (ids: readonly number[], imageTokenId: number): number =>
  ids.filter((_, i) => startsImage(ids, imageTokenId, i)).length

const stepsOf = (deltas: number | readonly number[], images: number): readonly number[] => {
  if (typeof deltas === 'number') return Array<number>(images).fill(checked(deltas))
  if (deltas.length !== images) throw new RangeError(`visualDelta: ${deltas.length} steps for ${images} images`)
  return deltas.map(checked)
}

/**
 * V2PE positions of ids: a text token advances by 1, an image token by `delta`, and the text after an image continues at the next
 * integer. `deltas` is one delta for all images (groups of consecutive image tokens) or a list with one for each image; with 1, positions
 * count tokens. Later tokens do not change earlier positions. Throws a `RangeError` for a delta outside (0, 1], or a list of another length
 * than the number of images.
 * Source: `get_rope_pos_id` (OpenGVLab/V2PE).
 */
export const visualPositions = (
  ids: readonly number[],
  imageTokenId: number,
  deltas: number | readonly number[]
): readonly number[] => {
  const steps = stepsOf(deltas, countImages(ids, imageTokenId))
  let [last, image, start, count] = [-1, -1, 0, 0]
  return ids.map((id, i) => {
    if (id !== imageTokenId) {
      last = Math.ceil(last) + 1
      return last
    }
    if (startsImage(ids, imageTokenId, i)) {
      image++
      count = 0
      start = i === 0 ? -steps[image]! : Math.ceil(last) // the first position of all is 0
    }
    last = start + steps[image]! * ++count // a product: a sum would accumulate rounding errors
    return last
  })
}

/** Position of token `i` of a sequence that starts with these positions and continues with text. */
export const positionAt = (positions: readonly number[], i: number): number =>
  i < positions.length ? positions[i]! : Math.ceil(positions.at(-1) ?? -1) + 1 + i - positions.length
