import type { Positions } from '../../lib/nn/rope.js'
import { positionAt, visualDeltas, visualPositions } from '../../models/internvl/v2pe.js'
import type { GenerateOptions } from './generation-options.js'

/**
 * The position of each token of the prompts. `visualDelta: 'auto'` leaves room for `allowed` more, each row for itself: what else is
 * in the batch changes nothing. Throws a `RangeError` for a prompt that does not fit `maxPositionEmbeddings`.
 */
export const promptPositions = (
  prompts: readonly (readonly number[])[],
  { visualDelta, imageTokenId, maxPositionEmbeddings: most = Number.POSITIVE_INFINITY }: GenerateOptions,
  allowed: number
): Positions =>
  prompts.map((ids) => {
    const by = (delta: number) => (imageTokenId === undefined ? [...ids.keys()] : visualPositions(ids, imageTokenId, delta))
    const needed = (delta: number) => positionAt(by(delta), ids.length)
    const fitting = () => visualDeltas.find((delta) => needed(delta) + allowed <= most) ?? visualDeltas.at(-1)!
    const positions = by(visualDelta === 'auto' ? fitting() : (visualDelta ?? 1))
    const length = positionAt(positions, ids.length)
    if (length <= most) return positions
    const size = length === ids.length ? `${length} tokens` : `${ids.length} tokens at ${length} positions`
    throw new RangeError(`inputIds: the prompt has ${size}, the model has ${most} positions`)
  })
