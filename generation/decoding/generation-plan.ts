import type { Positions } from '../../lib/nn/rope.js'
import type { RowCache } from './batch-cache.js'
import { checkOptions, type GenerateOptions, newTokensAllowed } from './generation-options.js'
import { composed, logitsProcessors } from './logits-processors.js'
import { promptPositions } from './positions.js'
import { type GenerateInputs, promptsOf } from './prefill.js'
import type { LogitsProcessor } from './step.js'
import { type FinishReason, type Stop, stopRule } from './stopping.js'

/** One step: for every row the token that it got, undefined once it has ended. */
export interface Step {
  readonly tokens: ReadonlyArray<number | undefined>
  /** With `outputLogprobs`. */
  readonly logprobs?: ReadonlyArray<number | undefined>
}

export interface GenerationResult {
  /** New tokens of each row, its end token included. */
  readonly sequences: readonly (readonly number[])[]
  readonly finishReasons: readonly FinishReason[]
  /** With `outputLogprobs`, of each token. */
  readonly logprobs?: readonly (readonly number[])[]
  /** Of beams: log-probability over `length ** lengthPenalty`. */
  readonly scores?: readonly number[]
  /** With `returnCache`, one for each row; of beams, one for each prompt, without its answers. The caller's, who calls `disposeCache(cache.kv)`. */
  readonly cache?: readonly RowCache[]
}

/** A run's steps and, at the end, its result. */
export type Generation = AsyncGenerator<Step, GenerationResult, void>

/** What one run does, settled before it begins. */
export interface Plan {
  readonly options: GenerateOptions
  readonly prompts: readonly (readonly number[])[]
  /** Of the prompts' tokens. */
  readonly positions: Positions
  /** One for each prompt. */
  readonly seeds: readonly number[]
  /** None: logits need not leave the device. */
  readonly process: LogitsProcessor | undefined
  /** Most tokens that are made. */
  readonly allowed: number
  readonly stop: Stop
}

/**
 * Reads and checks what `generate` is asked for.
 * Throws a `RangeError` that names the option or input wrong.
 */
export const planOf = (inputs: GenerateInputs, options: GenerateOptions): Plan => {
  checkOptions(options)
  const prompts = promptsOf(inputs)
  const { seed } = options
  if (typeof seed === 'object' && seed.length !== prompts.length)
    throw new RangeError(`seed: ${seed.length} seeds for ${prompts.length} rows`)
  const L = inputs.inputIds.shape[1]
  const allowed = newTokensAllowed(options, L)
  const positions = promptPositions(prompts, options, allowed)
  const processors = logitsProcessors(options, L, allowed)
  const byChance = Math.floor(Math.random() * 2 ** 53)
  const process = processors.length > 0 ? composed(processors) : undefined
  const seeds = typeof seed === 'object' ? seed : prompts.map(() => seed ?? byChance)
  return { options, prompts, positions, seeds, process, allowed, stop: stopRule(options, allowed) }
}
