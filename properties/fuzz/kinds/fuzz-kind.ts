import type fc from 'fast-check'
import type { Fixture } from '../fixture.js'

interface KindOf<I> {
  readonly name: string
  /** Inputs are plain data (structured clone): they go to a child process, and as JSON into the corpus. */
  readonly arbitrary: fc.Arbitrary<I>
  /**
   * Runs an input in the child process. Resolves to whether the input was accepted, or throws the error of the refusal. Every error
   * that `isDocumented` does not know is a finding, and so is a `Finding`.
   */
  readonly run: (input: I, fixture: Fixture) => Promise<boolean>
}

/** One kind of fuzzed input: how an input is sampled, and the calls of the library that receive the input. */
export type FuzzKind = KindOf<unknown>

/** A kind whose inputs have the type `I`; `run` receives inputs of its own arbitrary only. */
export const fuzzKind = <I>(kind: KindOf<I>): FuzzKind => ({ ...kind, run: (input, fixture) => kind.run(input as I, fixture) })
