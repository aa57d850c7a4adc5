import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { type Issues, issue, whenValid } from '../../../lib/error.js'
import type { Processor } from '../../../processors/processor.js'
import type { DatasetRow } from '../../evaluate/eval-dataset.js'
import { type FeedOptions, recipeOf } from './dataloader.js'
import type { TrainingData } from './mixture.js'
import { measure, type SampleSize } from './sample.js'

const AT_ONCE = 16

export interface MeasureOptions extends Pick<FeedOptions, 'config' | 'skipBad'> {
  /** Told after each row. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined
}

/**
 * The data with the sizes of its samples, of which the texts and the headers of the pictures are read. Errors: all rows that give no
 * sample (a picture that is none, one that would be cut off); with `skipBad` they are left out, unless nothing is left.
 */
export const measureRows =
  (processor: Processor, data: TrainingData, options: MeasureOptions): TaskEither<Issues, TrainingData> =>
  async () => {
    const found: E.Either<Issues, SampleSize>[] = []
    const queue = data.rows.keys()
    let done = 0
    const worker = async (): Promise<void> => {
      for (const i of queue) {
        const { row, options: own } = recipeOf(data, options, i)
        found[i] = await measure(processor, row as DatasetRow, own)()
        options.onProgress?.(++done, data.rows.length)
      }
    }
    await Promise.all(Array.from({ length: AT_ONCE }, worker))
    const bad = found.flatMap((size) => (E.isLeft(size) ? size.left : []))
    const kept = found.flatMap((size, i) => (E.isRight(size) ? [{ i, size: size.right }] : []))
    const none = kept.length === 0 ? [issue('NoRows', 'no row is left to learn from.')] : []
    return whenValid(options.skipBad && kept.length > 0 ? [] : [...bad, ...none], () => ({
      rows: kept.map(({ i }) => data.rows[i]!),
      repeats: kept.map(({ i }) => data.repeats[i]!),
      sizes: kept.map(({ size }) => size),
      skipped: [...data.skipped, ...bad]
    }))
  }
