import { type Figure, figures, type Kind, type Measured } from '../measure/measure.js'

/** The best of each figure: the greatest speed, the least of all else. */
type Flat = { readonly [F in Figure]?: number }

/** One contender at one size, over all its processes: the best and the median of its runs. */
export interface Result extends Flat {
  readonly engine: string
  readonly dtype: string
  readonly kind: Kind
  readonly size: number
  /** The size again, by the name of its kind. */
  readonly tiles?: number
  readonly context?: number
  readonly batch?: number
  readonly train?: number
  readonly tokens?: number
  readonly losses?: readonly number[]
  readonly memory?: Measured['memory']
  readonly median: Flat
  /** Against what it was compared with: times its speed, but for memory the share of it. */
  readonly versus?: { readonly engine: string; readonly dtype: string; readonly ratio: Flat }
}

/** Larger is better of these alone. */
const isSpeed = (figure: Figure): boolean => figure.endsWith('tokens_per_s')

export const median = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b)
  const [low, high] = [sorted[(sorted.length - 1) >> 1]!, sorted[sorted.length >> 1]!]
  return (low + high) / 2
}

/** Figures that are there. */
const eachFigure = (value: (figure: Figure) => number | undefined): Flat =>
  Object.fromEntries(
    figures.flatMap((figure) => {
      const found = value(figure)
      return found === undefined ? [] : [[figure, found]]
    })
  )

/** The runs of all processes of one contender together. Throws a `RangeError` for none. */
export const summarize = (rounds: readonly Measured[], kind: Kind, size: number): Result => {
  const [first] = rounds
  if (!first) throw new RangeError('summarize: nothing was measured')
  const { samples: _, ...who } = first
  const all = (figure: Figure) => rounds.flatMap(({ samples }) => samples[figure] ?? [])
  const over = (of: (values: readonly number[], figure: Figure) => number) =>
    eachFigure((figure) => (all(figure).length > 0 ? of(all(figure), figure) : undefined))
  const best = over((values, figure) => (isSpeed(figure) ? Math.max(...values) : Math.min(...values)))
  return { ...who, kind, size, ...(kind === 'load' ? {} : { [kind]: size }), ...best, median: over(median) }
}

/** How many times as fast as the other, and for memory as large: figures that both have. */
export const ratios = (own: Flat, other: Flat): Flat =>
  eachFigure((figure) => {
    const [a, b] = [own[figure], other[figure]]
    if (a === undefined || b === undefined) return undefined
    return isSpeed(figure) || figure === 'peak_rss_mb' ? a / b : b / a
  })
