import type * as E from 'fp-ts/lib/Either.js'
import type { Issue, Issues } from '../error.js'

/** From fastest to slowest. */
export const engineNames = ['native', 'wasm', 'cpu'] as const
export type EngineName = (typeof engineNames)[number]

/** Facts about an engine after it is loaded. */
export interface LoadedEngine {
  /** Version of TensorFlow (native) or of TensorFlow.js (wasm, cpu). */
  readonly version: string
  readonly devices: readonly string[]
  /** Parts of the engine that are missing, such as the compiled kernels: models run, but slower. */
  readonly issues?: readonly Issue[]
}

/** The engine that executes tensor operations. */
export interface Engine extends LoadedEngine {
  readonly name: EngineName
  /** The reason for this choice, in a few words. */
  readonly reason: string
  /** Issues of the faster engines that could not be loaded. */
  readonly unavailable: readonly Issue[]
}

/** Loads an engine and makes it the current TensorFlow.js backend, or returns the issues that prevent it. */
export type EngineLoader = () => Promise<E.Either<Issues, LoadedEngine>>

/** One loader for each engine. */
export type Loaders = Readonly<Record<EngineName, EngineLoader>>
