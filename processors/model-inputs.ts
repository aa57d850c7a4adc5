import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { type Issue, type Issues, invalid, whenValid } from '../lib/error.js'
import { tf } from '../lib/tf.js'
import type { EncodedBatch } from './encode.js'
import type { VisualInput } from './media/open-media.js'

/** Inputs of the model for a batch. The caller owns the tensors; `dispose` frees them. */
export interface ModelInputs {
  /** `[B, L]` int32. */
  readonly inputIds: tf.Tensor2D
  /** `[B, L]` int32, 0 at padding. */
  readonly attentionMask: tf.Tensor2D
  /** `[T, 3, height, width]` float32: the tiles of all images and videos in placeholder order. */
  readonly pixelValues?: tf.Tensor4D
  /** Token ids of each row without padding: the values of `inputIds` as plain numbers. */
  readonly promptIds: readonly (readonly number[])[]
  /** Tiles of each image and frames of each video, in placeholder order. */
  readonly numPatches: readonly number[]
  /** Rendered prompts, before placeholder expansion. */
  readonly prompts: readonly string[]
  /** Disposes the tensors. */
  readonly dispose: () => void
}

const pad = (rows: readonly (readonly number[])[], padId: number, side: 'left' | 'right'): readonly (readonly number[])[] => {
  const length = Math.max(...rows.map((row) => row.length))
  return rows.map((row) => {
    const padding = Array<number>(length - row.length).fill(padId)
    return side === 'left' ? [...padding, ...row] : [...row, ...padding]
  })
}

/** Decodes all images and videos to tiles `[T, 3, height, width]`; undefined where there are none. */
const readPixels =
  (visuals: readonly VisualInput[]): TE.TaskEither<Issues, tf.Tensor4D | undefined> =>
  async () => {
    const [first] = visuals
    if (!first) return E.right(undefined)
    const { width, height } = first.tileSize
    const other = visuals.find(({ tileSize }) => tileSize.width !== width || tileSize.height !== height)
    if (other)
      return invalid(
        'Option',
        `Tiles of ${width} x ${height} and ${other.tileSize.width} x ${other.tileSize.height} pixels cannot form one batch; leave doResize on.`
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

/** Model inputs of an encoded batch: decodes the pixels and pads the rows with `padId`. */
export const toModelInputs = (
  { ids, visuals, prompts }: EncodedBatch,
  padId: number,
  side: 'left' | 'right'
): TE.TaskEither<Issues, ModelInputs> =>
  pipe(
    readPixels(visuals),
    TE.map((pixelValues) => {
      const mask = ids.map((row) => Array<number>(row.length).fill(1))
      const inputIds = tf.tensor2d(pad(ids, padId, side) as number[][], undefined, 'int32')
      const attentionMask = tf.tensor2d(pad(mask, 0, side) as number[][], undefined, 'int32')
      return {
        inputIds,
        attentionMask,
        ...(pixelValues ? { pixelValues } : {}),
        promptIds: ids,
        numPatches: visuals.map(({ tiles }) => tiles),
        prompts,
        dispose: () => tf.dispose([inputIds, attentionMask, ...(pixelValues ? [pixelValues] : [])])
      }
    })
  )
