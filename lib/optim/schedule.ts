/** The learning rate of each step, counted from 0: what `adamW` takes for a rate. */
export type Schedule = (step: number) => number

export interface ScheduleOptions {
  /** The rate after the warm-up, the highest. */
  readonly rate: number
  /** So many steps go up to it in a line, from 0; none by default. */
  readonly warmupSteps?: number
  /** All steps, warm-up included: where the rate has come down to 0. */
  readonly totalSteps: number
}

/** After the warm-up, `share` gives the part of the rate: of the steps since then, those left, and at least 1 of both together. */
const warmedUp =
  (share: (past: number, left: number, span: number) => number) =>
  ({ rate, warmupSteps = 0, totalSteps }: ScheduleOptions): Schedule => {
    if (!(rate >= 0)) throw new RangeError(`schedule: the rate must be 0 or more, got ${rate}`)
    if (!(warmupSteps >= 0)) throw new RangeError(`schedule: warmupSteps must be 0 or more, got ${warmupSteps}`)
    return (step) =>
      step < warmupSteps
        ? (rate * step) / Math.max(1, warmupSteps)
        : rate * Math.max(0, share(step - warmupSteps, totalSteps - step, Math.max(1, totalSteps - warmupSteps)))
  }

/** Schedules by their names. Source: `get_{constant,linear,cosine}_schedule_with_warmup` (transformers 5.23). */
export const schedules = {
  constant: warmedUp(() => 1),
  linear: warmedUp((_, left, span) => left / span),
  cosine: warmedUp((past, _, span) => 0.5 * (1 + Math.cos((Math.PI * past) / span)))
} as const

export type ScheduleName = keyof typeof schedules
