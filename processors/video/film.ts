import type * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import type { Issues } from '../../lib/error.js'
import type { Rgb, Size } from '../image/resize.js'

/** What is known of a film before a frame is decoded. */
export interface VideoMetadata {
  readonly totalNumFrames: number
  /** Frames a second. */
  readonly fps?: number | undefined
}

/** A film before a frame of it is decoded. */
export interface Film extends VideoMetadata {
  /** Width and height of the frame at an index, in pixels. */
  readonly sizeOf: (index: number) => TaskEither<Issues, Size>
  /** The frames at these indices, which rise, one decoded at a time as it is asked for. */
  readonly frames: (indices: readonly number[]) => AsyncIterable<E.Either<Issues, Rgb>>
}
