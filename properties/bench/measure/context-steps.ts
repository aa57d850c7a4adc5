import type { InternVLCheckpoint } from '../../../generation/checkpoint/load.js'
import { type GenerateInputs, generate } from '../../../generation/decoding/generate.js'
import { selectEngine } from '../../../lib/engines/index.js'
import { tf } from '../../../lib/tf.js'
import { median } from '../report/summary.js'
import { textInputs } from './inputs.js'
import { checkPositions } from './measure.js'
import { loadIn, type PrecisionName } from './precisions.js'

/** Decoding steps after a short and after a long prompt, in turn in one process, since the speed of a machine differs from minute to minute. */
export interface ContextJob {
  readonly checkpoint: string
  readonly precision: PrecisionName
  /** Tokens of the two prompts. */
  readonly sizes: readonly [short: number, long: number]
  /** Number of times that each prompt is continued, by ten steps. */
  readonly turns: number
}

/** Medians of the steps after each prompt that count. */
export interface ContextSteps {
  readonly engine: string
  readonly dtype: string
  readonly sizes: readonly [short: number, long: number]
  /** Number of steps after each prompt that count. */
  readonly steps: number
  readonly seconds: readonly [short: number, long: number]
}

const stepsOfTurn = 10
const warmUp = 2 // steps of a turn that do not count: the caches of the processor hold what the other prompt has left

/** Generates the first token after a prompt. `takeStep` generates the next and returns its seconds; `end` releases the tensors. */
const begin = async ({ model }: InternVLCheckpoint, inputs: GenerateInputs, steps: number) => {
  const tokens = generate(model, inputs, { maxNewTokens: steps + 1, eosTokenIds: [] })
  await tokens.next()
  const takeStep = async (): Promise<number> => {
    const start = performance.now()
    await tokens.next()
    return (performance.now() - start) / 1000
  }
  const end = async (): Promise<void> => {
    for await (const _ of tokens);
  }
  return { takeStep, end }
}

/** Loads the checkpoint and measures decoding steps. Throws a `RangeError` if the model has too few positions for the prompts. */
export const measureContextSteps = async ({ checkpoint, precision, sizes, turns }: ContextJob): Promise<ContextSteps> => {
  const engine = await selectEngine()
  const internvl = await loadIn(checkpoint, precision)
  const prompts = sizes.map((size) => textInputs(internvl.config, size))
  try {
    checkPositions(internvl, 'context', sizes[1], sizes[1] + turns * stepsOfTurn + 1)
    const decodings = []
    for (const inputs of prompts) decodings.push(await begin(internvl, inputs, turns * stepsOfTurn))
    const seconds: [number[], number[]] = [[], []]
    for (let turn = 0; turn < turns; turn++)
      for (const [i, { takeStep }] of decodings.entries())
        for (let step = 0; step < stepsOfTurn; step++) {
          const taken = await takeStep()
          if (step >= warmUp) seconds[i]!.push(taken)
        }
    for (const { end } of decodings) await end()
    const contender = { engine: engine.name, dtype: precision }
    return { ...contender, sizes, steps: seconds[0].length, seconds: [median(seconds[0]), median(seconds[1])] }
  } finally {
    tf.dispose(prompts.map(({ inputIds }) => inputIds))
    internvl.dispose()
  }
}
