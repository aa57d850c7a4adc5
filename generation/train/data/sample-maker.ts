import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import type { Issue, Issues } from '../../../lib/error.js'
import type { Processor } from '../../../processors/processor.js'
import type { DatasetRow } from '../../evaluate/eval-dataset.js'
import { encodePreference, encodeSample, type Sample, type SampleOptions } from './sample.js'

/** A sample. For a preference row: the sample of the chosen answer, with the sample of the rejected answer. */
export interface PreparedSample {
  readonly sample: Sample
  readonly rejected?: Sample
  /** Index of the packed row that holds the sample. */
  readonly group?: number
}

/**
 * Makes a sample from a specification: plain data, which can be sent to a worker thread. A module that exports a `makeSample` of this
 * type can be given to `prefetch` by its URL; worker threads import the module.
 */
export type SampleMaker<S> = (processor: Processor, spec: S) => TE.TaskEither<Issues, PreparedSample>

/** Specification of a sample of the training data: a row and the options to encode it. */
export interface SampleSpec {
  readonly row: DatasetRow
  readonly options?: Omit<SampleOptions, 'retouch'>
  /** Index of the packed row that shall hold the sample. */
  readonly group?: number
}

/** URL of a module without the query that a TypeScript loader may add. */
export const moduleUrl = (url: string): string => url.replace(/\?.*$/, '')

/** URL of this module, the default sample maker of `prefetch`. */
export const defaultMakerModule: string = moduleUrl(import.meta.url)

/** Encodes a row, or both answers of a preference row. */
export const makeSample: SampleMaker<SampleSpec> = (processor, { row, options, group }) =>
  pipe(
    row.rejected === undefined
      ? pipe(
          encodeSample(processor, row, options),
          TE.map((sample): PreparedSample => ({ sample }))
        )
      : pipe(
          encodePreference(processor, row, options),
          TE.map(({ chosen, rejected }): PreparedSample => ({ sample: chosen, rejected }))
        ),
    TE.map((prepared) => (group === undefined ? prepared : { ...prepared, group }))
  )

/** The samples of one batch, and the errors of specifications that gave no sample. */
export interface SampleBatch {
  readonly prepared: readonly PreparedSample[]
  readonly issues: readonly Issue[]
}

/** Makes the samples of a batch one after another. */
export const makeSamples = async <S>(make: SampleMaker<S>, processor: Processor, specs: readonly S[]): Promise<SampleBatch> => {
  const results: E.Either<Issues, PreparedSample>[] = []
  for (const spec of specs) results.push(await make(processor, spec)())
  return {
    prepared: results.flatMap((result) => (E.isRight(result) ? [result.right] : [])),
    issues: results.flatMap((result) => (E.isLeft(result) ? result.left : []))
  }
}

/** Imports the `makeSample` of a module. */
export const importMaker = async (module: string): Promise<SampleMaker<unknown>> => {
  const { makeSample } = (await import(module)) as { readonly makeSample?: SampleMaker<unknown> }
  if (makeSample === undefined) throw new TypeError(`${module}: a module of a sample maker must export makeSample`)
  return makeSample
}
