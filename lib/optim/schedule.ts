/** The learning rate of each step, counted from 0; `adamW` takes a schedule as its `learningRate`. */
export type Schedule = (step: number) => number

/** The maximum learning rate, after the warm-up. */
type MaxLearningRate =
  | { readonly learningRate: number; readonly rate?: never }
  /** @deprecated Use `learningRate`. */
  | { readonly rate: number; readonly learningRate?: never }

export type ScheduleOptions = MaxLearningRate & {
  /** Number of steps of a linear warm-up from 0; none by default. */
  readonly warmupSteps?: number
  /** Number of all steps, warm-up included; the learning rate reaches 0 at the end. */
  readonly totalSteps: number
}

/** A schedule with warm-up. `share` is the fraction of the maximum after it, from the steps since the warm-up, the steps left, and their sum (at least 1). */
const warmedUp =
  (share: (past: number, left: number, span: number) => number) =>
  ({ rate = Number.NaN, learningRate = rate, warmupSteps = 0, totalSteps }: ScheduleOptions): Schedule => {
    if (!(learningRate >= 0)) throw new RangeError(`schedule: the learning rate must be 0 or more, got ${learningRate}`)
    if (!(warmupSteps >= 0)) throw new RangeError(`schedule: warmupSteps must be 0 or more, got ${warmupSteps}`)
    return (step) =>
      step < warmupSteps
        ? (learningRate * step) / Math.max(1, warmupSteps)
        : learningRate * Math.max(0, share(step - warmupSteps, totalSteps - step, Math.max(1, totalSteps - warmupSteps)))
  }

/** Schedules by name. Source: `get_{constant,linear,cosine}_schedule_with_warmup` (transformers 5.24). */
export const schedules = {
  constant: warmedUp(() => 1),
  linear: warmedUp((_, left, span) => left / span),
  cosine: warmedUp((past, _, span) => 0.5 * (1 + Math.cos((Math.PI * past) / span)))
} as const

export type ScheduleName = keyof typeof schedules
