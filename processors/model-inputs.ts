import * as E from 'fp-ts/lib/Either.js'
import { type Issue, type Issues, whenValid } from '../lib/error.js'
import { tf } from '../lib/tf.js'
import { invalid } from './collect.js'
import type { Assembled } from './encode.js'
import type { Visual } from './media/open-media.js'

/** What the model takes. The tensors belong to the caller, who disposes them. */
export interface ModelInputs {
  /** `[B, L]` int32. */
  readonly inputIds: tf.Tensor2D
  /** `[B, L]` int32, 0 where a row is filled up. */
  readonly attentionMask: tf.Tensor2D
  /** `[T, 3, height, width]` float32: the tiles of all pictures and films in the order of their placeholders. */
  readonly pixelValues?: tf.Tensor4D
  /** Tiles of each picture, frames of each film, in the same order. */
  readonly numPatches: readonly number[]
  /** The prompts as the chat template gives them, placeholders not yet written out. */
  readonly prompts: readonly string[]
}

const pad = (rows: readonly (readonly number[])[], filler: number, side: 'left' | 'right'): readonly (readonly number[])[] => {
  const length = Math.max(...rows.map((row) => row.length))
  return rows.map((row) => {
    const filling = Array<number>(length - row.length).fill(filler)
    return side === 'left' ? [...filling, ...row] : [...row, ...filling]
  })
}

const writePixels = async (visuals: readonly Visual[]): Promise<E.Either<Issues, tf.Tensor4D | undefined>> => {
  const [first] = visuals
  if (!first) return E.right(undefined)
  const { width, height } = first.tileSize
  const other = visuals.find(({ tileSize }) => tileSize.width !== width || tileSize.height !== height)
  if (other)
    return invalid(
      'Option',
      `Tiles of ${width} x ${height} and of ${other.tileSize.width} x ${other.tileSize.height} pixels make no batch; leave doResize on.`
    )
  const tiles = visuals.reduce((sum, visual) => sum + visual.tiles, 0)
  const values = new Float32Array(tiles * 3 * width * height)
  const issues: Issue[] = []
  let offset = 0
  for (const visual of visuals) {
    const written = await visual.write(values, offset)()
    if (E.isLeft(written)) issues.push(...written.left)
    offset += visual.tiles * 3 * width * height
  }
  return whenValid(issues, () => tf.tensor4d(values, [tiles, 3, height, width]))
}

/** The inputs of the model from ids and pictures: rows filled up, tiles read. */
export const toInputs = async (
  { ids, visuals, prompts }: Assembled,
  filler: number,
  side: 'left' | 'right'
): Promise<E.Either<Issues, ModelInputs>> => {
  const pixels = await writePixels(visuals)
  if (E.isLeft(pixels)) return pixels
  const mask = ids.map((row) => Array<number>(row.length).fill(1))
  return E.right({
    inputIds: tf.tensor2d(pad(ids, filler, side) as number[][], undefined, 'int32'),
    attentionMask: tf.tensor2d(pad(mask, 0, side) as number[][], undefined, 'int32'),
    ...(pixels.right ? { pixelValues: pixels.right } : {}),
    numPatches: visuals.map(({ tiles }) => tiles),
    prompts
  })
}
