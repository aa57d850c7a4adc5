/** Options of the green-list watermark, with Transformers' names and defaults. Source: Kirchenbauer et al. 2023. */
export interface GreenListWatermark {
  /** Share of the vocabulary that is green; 0.25 by default. */
  readonly greenlistRatio?: number
  /** Added to the logits of green tokens; 2 by default. */
  readonly bias?: number
  /** Key of the hash: choose one of your own. 15485863 by default. */
  readonly hashingKey?: number
  /** The green list follows from the last token (`lefthash`, the default), or from the new token itself too (`selfhash`). */
  readonly seedingScheme?: 'lefthash' | 'selfhash'
  /** Number of previous tokens that the hash reads; 1 by default. */
  readonly contextWidth?: number
}

/** Options of the SynthID text watermark, with Transformers' names and defaults. Source: Dathathri et al. 2024. */
export interface SynthIdWatermark {
  readonly ngramLen: number
  /** One key for each layer of the tournament. */
  readonly keys: readonly number[]
  /** Number of contexts that are remembered: a repeated context is not watermarked. 1024 by default. */
  readonly contextHistorySize?: number
  readonly samplingTableSeed?: number
  readonly samplingTableSize?: number
  /** Leaves the first `ngramLen - 1` tokens without watermark. */
  readonly skipFirstNgramCalls?: boolean
}

/** A watermark of `generate`: green lists, or SynthID where `ngramLen` and `keys` are given. */
export type WatermarkingConfig = GreenListWatermark | SynthIdWatermark

export const isSynthId = (c: WatermarkingConfig): c is SynthIdWatermark => 'ngramLen' in c || 'keys' in c

const isWhole = (value: unknown, from: number, to = Number.MAX_SAFE_INTEGER): boolean =>
  Number.isSafeInteger(value) && (value as number) >= from && (value as number) <= to

type Checks = Readonly<Record<string, readonly [description: string, holds: (value: unknown) => boolean]>>

const greenListChecks: Checks = {
  greenlistRatio: ['a number above 0 and below 1', (x) => typeof x === 'number' && x > 0 && x < 1],
  bias: ['a number', (x) => Number.isFinite(x)],
  hashingKey: ['an integer of 1 or more', (x) => isWhole(x, 1)],
  seedingScheme: ["'lefthash' or 'selfhash'", (x) => x === 'lefthash' || x === 'selfhash'],
  contextWidth: ['an integer of 1 or more', (x) => isWhole(x, 1)]
}
const synthIdChecks: Checks = {
  ngramLen: ['an integer of 2 or more', (x) => isWhole(x, 2)],
  keys: ['a list of integers', (x) => Array.isArray(x) && x.length > 0 && x.every((key) => Number.isSafeInteger(key))],
  contextHistorySize: ['an integer of 1 or more', (x) => isWhole(x, 1)],
  samplingTableSeed: ['an integer of 0 or more', (x) => isWhole(x, 0)],
  samplingTableSize: ['an integer from 1 to 16777216', (x) => isWhole(x, 1, 2 ** 24)],
  skipFirstNgramCalls: ['true or false', (x) => typeof x === 'boolean']
}

/** The first problem of a watermarking configuration, which may come from a caller without types; undefined if it is valid. */
export const watermarkProblem = (config: unknown): string | undefined => {
  if (typeof config !== 'object' || config === null) return 'expected an object, such as { seedingScheme: "selfhash", bias: 2.5 }'
  const checks = isSynthId(config as WatermarkingConfig) ? synthIdChecks : greenListChecks
  const [unknown] = Object.keys(config).filter((key) => !Object.hasOwn(checks, key))
  if (unknown !== undefined) return `no field ${unknown}; the fields are ${Object.keys(checks).join(', ')}`
  const required = checks === synthIdChecks ? ['ngramLen', 'keys'] : []
  const wrong = Object.entries(checks).find(([key, [, holds]]) => {
    const value = (config as Readonly<Record<string, unknown>>)[key]
    return value === undefined ? required.includes(key) : !holds(value)
  })
  return wrong && `${wrong[0]}: expected ${wrong[1][0]}`
}
