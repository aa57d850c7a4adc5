import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { type Issues, issue, whenValid } from '../../../lib/error.js'
import type { Processor } from '../../../processors/processor.js'
import { type DataLoaderOptions, sampleSpec } from './dataloader.js'
import type { TrainingData } from './mixture.js'
import { type SampleSize, sampleSize } from './sample.js'

const CONCURRENCY = 16

export interface SampleSizesOptions extends Pick<DataLoaderOptions, 'config' | 'skipBad'> {
  /** Called after each row. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined
}

/**
 * The data with the size of each sample, computed from the texts and the image headers. Errors: every row that gives no sample (a file
 * that is not an image, a sample that would be cut off). With `skipBad` these rows are left out, unless no row is left.
 */
export const sampleSizes =
  (processor: Processor, data: TrainingData, options: SampleSizesOptions): TaskEither<Issues, TrainingData> =>
  async () => {
    const found: E.Either<Issues, SampleSize>[] = []
    const queue = data.rows.keys()
    let done = 0
    const worker = async (): Promise<void> => {
      for (const i of queue) {
        const { row, options: sampleOptions } = sampleSpec(data, options, i)
        found[i] = await sampleSize(processor, row, sampleOptions)()
        options.onProgress?.(++done, data.rows.length)
      }
    }
    await Promise.all(Array.from({ length: CONCURRENCY }, worker))
    const issues = found.flatMap((size) => (E.isLeft(size) ? size.left : []))
    const sized = found.flatMap((size, i) => (E.isRight(size) ? [{ i, size: size.right }] : []))
    const none = sized.length === 0 ? [issue('NoRows', 'no training row is left.')] : []
    return whenValid(options.skipBad && sized.length > 0 ? [] : [...issues, ...none], () => ({
      rows: sized.map(({ i }) => data.rows[i]!),
      repeats: sized.map(({ i }) => data.repeats[i]!),
      sizes: sized.map(({ size }) => size),
      skipped: [...data.skipped, ...issues]
    }))
  }
