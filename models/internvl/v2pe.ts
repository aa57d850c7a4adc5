/** The steps that V2PE trains with, one drawn for each image: 1, 1/2, …, 1/256. Source: `v2pe_rnd` (OpenGVLab/V2PE). */
export const visualDeltas: readonly number[] = Array.from({ length: 9 }, (_, k) => 2 ** -k)

/** Throws a `RangeError` for a step that is not above 0 and at most 1. */
const checked = (delta: number): number => {
  if (delta > 0 && delta <= 1) return delta
  throw new RangeError(`visualDelta: it should be above 0 and at most 1; it is ${delta}`)
}

/** Whether an image begins at a place: the first of neighbouring image tokens. */
const begins = (ids: readonly number[], imageTokenId: number, i: number): boolean =>
  ids[i] === imageTokenId && ids[i - 1] !== imageTokenId

/** How many images, runs of image tokens, there are. */
export const imagesIn = (ids: readonly number[], imageTokenId: number): number =>
  ids.filter((_, i) => begins(ids, imageTokenId, i)).length

const stepsOf = (deltas: number | readonly number[], images: number): readonly number[] => {
  if (typeof deltas === 'number') return Array<number>(images).fill(checked(deltas))
  if (deltas.length !== images) throw new RangeError(`visualDelta: ${deltas.length} steps for ${images} images`)
  return deltas.map(checked)
}

/**
 * The position of each id by V2PE: one further with a text token, `delta` further with an image token, and on from the next whole
 * number after an image. `deltas` is one for all images (runs of image tokens), or a list with one for each; 1 counts tokens.
 * A later token changes none before it. Throws a `RangeError` for a delta outside (0, 1], or another number of them than of images.
 * Source: `get_rope_pos_id` (OpenGVLab/V2PE).
 */
export const visualPositions = (
  ids: readonly number[],
  imageTokenId: number,
  deltas: number | readonly number[]
): readonly number[] => {
  const steps = stepsOf(deltas, imagesIn(ids, imageTokenId))
  let [last, image, start, count] = [-1, -1, 0, 0]
  return ids.map((id, i) => {
    if (id !== imageTokenId) {
      last = Math.ceil(last) + 1
      return last
    }
    if (begins(ids, imageTokenId, i)) {
      image++
      count = 0
      start = i === 0 ? -steps[image]! : Math.ceil(last) // the first position of all is 0
    }
    last = start + steps[image]! * ++count // a product: a sum would gather what each step is rounded by
    return last
  })
}

/** The position of the token at place `i` of a sequence that begins with tokens at these positions and goes on with text. */
export const positionAt = (positions: readonly number[], i: number): number =>
  i < positions.length ? positions[i]! : Math.ceil(positions.at(-1) ?? -1) + 1 + i - positions.length
