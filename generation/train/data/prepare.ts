import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import type { Issue, Issues } from '../../../lib/error.js'
import type { Processor } from '../../../processors/processor.js'
import { sample, type Task } from '../../demo/scenes.js'
import type { DatasetRow } from '../../evaluate/eval-dataset.js'
import { preferenceOf, type Sample, type SampleOptions, sampleOf } from './sample.js'

/** A conversation of the demo model's world, to be drawn. */
export interface SceneRecipe {
  readonly seed: number
  readonly index: number
  readonly weights?: Readonly<Partial<Record<Task, number>>>
}

/** What a sample is made of, in plain data: a row, or a scene to draw; and how. */
export interface Recipe {
  readonly row: DatasetRow | SceneRecipe
  readonly options?: Omit<SampleOptions, 'retouch'>
  /** The row of its batch that it is for, where samples are packed. */
  readonly group?: number
}

/** A sample; of a preference row the chosen answer's, and the rejected answer's beside it. */
export interface Prepared {
  readonly sample: Sample
  readonly rejected?: Sample
  readonly group?: number
}

/** Samples of one batch, and what was wrong with recipes that gave none. */
export interface PreparedBatch {
  readonly prepared: readonly Prepared[]
  readonly issues: readonly Issue[]
}

/** Makes the sample of a recipe. */
export const prepare =
  (processor: Processor, { row: given, options, group }: Recipe): TaskEither<Issues, Prepared> =>
  async () => {
    const own = group === undefined ? {} : { group }
    const row = 'seed' in given ? sample(given.seed, given.index, given.weights) : given
    if (row.rejected === undefined)
      return E.map((made: Sample): Prepared => ({ sample: made, ...own }))(await sampleOf(processor, row, options)())
    const pair = await preferenceOf(processor, row, options)()
    return E.map(
      ({ chosen, rejected }: { chosen: Sample; rejected: Sample }): Prepared => ({ sample: chosen, rejected, ...own })
    )(pair)
  }

/** Makes the samples of a batch, as far as they can be made. */
export const prepareBatch = async (processor: Processor, recipes: readonly Recipe[]): Promise<PreparedBatch> => {
  const made = []
  for (const recipe of recipes) made.push(await prepare(processor, recipe)())
  return {
    prepared: made.flatMap((each) => (E.isRight(each) ? [each.right] : [])),
    issues: made.flatMap((each) => (E.isLeft(each) ? each.left : []))
  }
}
