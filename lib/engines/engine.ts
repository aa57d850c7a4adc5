import type * as E from 'fp-ts/lib/Either.js'
import type { Issue, Issues } from '../error.js'

/** From fastest to slowest. */
export const engineNames = ['native', 'wasm', 'cpu'] as const
export type EngineName = (typeof engineNames)[number]

/** What an engine says once it is loaded. */
export interface Loaded {
  /** Version of TensorFlow (native) or of TensorFlow.js (wasm, cpu). */
  readonly version: string
  readonly devices: readonly string[]
  /** What runs slower than it could, and why. */
  readonly issues?: readonly Issue[]
}

/** What runs the tensors. */
export interface Engine extends Loaded {
  readonly name: EngineName
  /** Why this one, in a few words. */
  readonly why: string
  /** Why no faster one. */
  readonly refused: readonly Issue[]
}

/** Loads an engine and makes it the one that runs, or says why it can't. */
export type Loaders = Readonly<Record<EngineName, () => Promise<E.Either<Issues, Loaded>>>>
