import { type Figure, figures, type Kind, type Measured } from '../measure/measure.js'

/** The best value of each figure: the maximum of speeds, the minimum of times and memory. */
type Flat = { readonly [F in Figure]?: number }

/** Results of one contender at one size, over all its processes: best and median of the runs. */
export interface Result extends Flat {
  readonly engine: string
  readonly dtype: string
  readonly kind: Kind
  readonly size: number
  /** `size` under the name of `kind`. */
  readonly tiles?: number
  readonly context?: number
  readonly batch?: number
  readonly train?: number
  readonly tokens?: number
  readonly losses?: readonly number[]
  readonly work?: Measured['work']
  readonly memory?: Measured['memory']
  readonly median: Flat
  /** Comparison with the rival: speed-up factor, and for memory the share of the rival's. */
  readonly versus?: { readonly engine: string; readonly dtype: string; readonly ratio: Flat }
}

/** Speeds are the only figures of which larger is better. */
const isSpeed = (figure: Figure): boolean => figure.endsWith('tokens_per_s')

export const median = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b)
  const [low, high] = [sorted[(sorted.length - 1) >> 1]!, sorted[sorted.length >> 1]!]
  return (low + high) / 2
}

/** The figures for which `value` is defined. */
const eachFigure = (value: (figure: Figure) => number | undefined): Flat =>
  Object.fromEntries(
    figures.flatMap((figure) => {
      const found = value(figure)
      return found === undefined ? [] : [[figure, found]]
    })
  )

/** Summary of all processes of one contender. Throws a `RangeError` for an empty list. */
export const summarize = (rounds: readonly Measured[], kind: Kind, size: number): Result => {
  const [first] = rounds
  if (!first) throw new RangeError('summarize: nothing was measured')
  const { samples: _, ...contender } = first
  const all = (figure: Figure) => rounds.flatMap(({ samples }) => samples[figure] ?? [])
  const over = (of: (values: readonly number[], figure: Figure) => number) =>
    eachFigure((figure) => (all(figure).length > 0 ? of(all(figure), figure) : undefined))
  const best = over((values, figure) => (isSpeed(figure) ? Math.max(...values) : Math.min(...values)))
  return { ...contender, kind, size, ...(kind === 'load' ? {} : { [kind]: size }), ...best, median: over(median) }
}

/** Speed-up factors against `other`, and for memory the ratio of sizes, of the figures that both have. */
export const ratios = (result: Flat, other: Flat): Flat =>
  eachFigure((figure) => {
    const [a, b] = [result[figure], other[figure]]
    if (a === undefined || b === undefined) return undefined
    return isSpeed(figure) || figure === 'peak_rss_mb' ? a / b : b / a
  })
