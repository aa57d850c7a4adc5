import { greenList } from './green-list.js'
import { type GreenListWatermark, isSynthId, watermarkProblem } from './watermarking-config.js'

export interface WatermarkDetectorOptions {
  /** Size of the model's vocabulary: `config.textConfig.vocabSize`. */
  readonly vocabSize: number
  /** The configuration with which the text was generated. */
  readonly watermarkingConfig: GreenListWatermark
  /** A first token that is dropped. */
  readonly bosTokenId?: number | undefined
  /** Counts each n-gram once. */
  readonly ignoreRepeatedNgrams?: boolean
}

/** The evidence for a watermark in one text. */
export interface WatermarkDetection {
  readonly numTokensScored: number
  readonly numGreenTokens: number
  readonly greenFraction: number
  /** Standard deviations above the number of green tokens that a text without watermark has. */
  readonly zScore: number
  /** Probability of such a z-score without watermark. */
  readonly pValue: number
  /** Whether the z-score is above the threshold. */
  readonly prediction: boolean
  readonly confidence: number
}

/** `erfc(x)` of x ≥ 0 by a continued fraction beyond 2, else by the series of erf; relative error below 1e-12. */
const erfcOfPositive = (x: number): number => {
  if (x > 2) {
    let fraction = 0
    for (let k = 200; k > 0; k--) fraction = k / 2 / (x + fraction)
    return Math.exp(-x * x) / (Math.sqrt(Math.PI) * (x + fraction))
  }
  let [term, sum] = [x, x]
  for (let k = 1; Math.abs(term) > 1e-17; k++) {
    term *= (-x * x) / k
    sum += term / (2 * k + 1)
    if (k > 100) break
  }
  return 1 - (2 / Math.sqrt(Math.PI)) * sum
}

/** Probability that a standard normal variable is above z. */
const upperTail = (z: number): number => (z < 0 ? 1 - upperTail(-z) : 0.5 * erfcOfPositive(z / Math.SQRT2))

/**
 * A detector of the green-list watermark: `detect(ids, zThreshold)` counts the green tokens of a text, best without its prompt. Throws a
 * `RangeError` for an invalid configuration, or a text with too few tokens. Source: `WatermarkDetector` (transformers 5.24).
 *
 * `watermarkDetector({ vocabSize, watermarkingConfig: { bias: 2.5 } })(ids).prediction`
 */
export const watermarkDetector = ({
  vocabSize,
  watermarkingConfig: c,
  bosTokenId,
  ignoreRepeatedNgrams = false
}: WatermarkDetectorOptions) => {
  const problem = isSynthId(c) ? 'a SynthID watermark has synthIdBits' : watermarkProblem(c)
  if (problem !== undefined) throw new RangeError(`watermarkingConfig: ${problem}`)
  if (!Number.isSafeInteger(vocabSize) || vocabSize < 1)
    throw new RangeError(`vocabSize: expected an integer of 1 or more, got ${vocabSize}`)
  const { seedingScheme = 'lefthash', contextWidth = 1, greenlistRatio = 0.25 } = c
  const isSelfHash = seedingScheme === 'selfhash'
  const n = contextWidth + (isSelfHash ? 0 : 1)
  const isGreen = (ngram: readonly number[]) =>
    greenList(isSelfHash ? ngram : ngram.slice(0, -1), vocabSize, c).includes(ngram.at(-1)!)
  return (text: readonly number[], zThreshold = 3): WatermarkDetection => {
    const ids = bosTokenId !== undefined && text[0] === bosTokenId ? text.slice(1) : text
    if (ids.length - contextWidth < 1)
      throw new RangeError(`ids: expected more than contextWidth (${contextWidth}) tokens, got ${ids.length}`)
    const counts = new Map<string, { readonly ngram: readonly number[]; count: number }>()
    for (let i = 0; i + n <= ids.length; i++) {
      const ngram = ids.slice(i, i + n)
      const found = counts.get(ngram.join())
      if (found) found.count++
      else counts.set(ngram.join(), { ngram, count: 1 })
    }
    const weightOf = (count: number) => (ignoreRepeatedNgrams ? 1 : count)
    const all = [...counts.values()]
    const numTokensScored = all.reduce((sum, { count }) => sum + weightOf(count), 0)
    const numGreenTokens = all.reduce((sum, { ngram, count }) => (isGreen(ngram) ? sum + weightOf(count) : sum), 0)
    const deviation = Math.sqrt(numTokensScored * greenlistRatio * (1 - greenlistRatio))
    const zScore = (numGreenTokens - greenlistRatio * numTokensScored) / deviation
    const pValue = upperTail(zScore)
    const greenFraction = numGreenTokens / numTokensScored
    return {
      numTokensScored,
      numGreenTokens,
      greenFraction,
      zScore,
      pValue,
      prediction: zScore > zThreshold,
      confidence: 1 - pValue
    }
  }
}
