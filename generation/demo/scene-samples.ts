import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { encodeSample } from '../train/data/sample.js'
import { moduleUrl, type PreparedSample, type SampleMaker } from '../train/data/sample-maker.js'
import { sceneSample, type Task } from './scenes.js'

/** Specification of a rendered scene. */
export interface SceneSpec {
  readonly seed: number
  readonly index: number
  readonly weights?: Readonly<Partial<Record<Task, number>>>
  /** Most tiles of an image, besides the thumbnail; 1 by default. */
  readonly maxPatches?: number
}

/** URL of this module, for `prefetch`: worker threads import `makeSample` from here. */
export const sceneMakerModule: string = moduleUrl(import.meta.url)

/** Renders a scene and encodes its conversation. */
export const makeSample: SampleMaker<SceneSpec> = (processor, { seed, index, weights, maxPatches = 1 }) =>
  pipe(
    encodeSample(processor, sceneSample(seed, index, weights), { maxPatches }),
    TE.map((sample): PreparedSample => ({ sample }))
  )
