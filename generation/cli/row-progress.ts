import { SingleBar } from 'cli-progress'
import type { BatchProgress } from '../jobs/run-batch.js'
import { info } from './common.js'

/** Milliseconds between two lines where standard error is no terminal. */
const LINE_INTERVAL = 10_000

/** A duration such as `1h02m`, `3m05s` or `12s`. */
export const durationText = (seconds: number): string => {
  const whole = Math.max(0, Math.round(seconds))
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60]
  const two = (n: number): string => String(n).padStart(2, '0')
  if (hours > 0) return `${hours}h${two(minutes)}m`
  return minutes > 0 ? `${minutes}m${two(rest)}s` : `${rest}s`
}

/** Rate, and the time that the remaining rows need at this rate; the rows of an earlier run do not count. */
const rateText = ({ done, total, resumed }: BatchProgress, seconds: number): string => {
  const rate = (done - resumed) / Math.max(seconds, 1e-3)
  const left = rate > 0 ? `, ${durationText((total - done) / rate)} left` : ''
  return `${rate >= 10 ? rate.toFixed(0) : rate.toFixed(2)} rows/s${left}`
}

/** Progress of rows on standard error: a bar on a terminal, else a line every ten seconds. */
export const rowProgress = (name: string) => {
  const bar = new SingleBar({ format: `${name} [{bar}] {value}/{total} rows, {rate}`, stream: process.stderr, hideCursor: true })
  const start = performance.now()
  let [isShown, lastLine] = [false, start]
  /** `first`: rows that were done at the beginning without a line about them. */
  const update = (progress: BatchProgress, first = progress.resumed): void => {
    const { done, total, resumed, errors } = progress
    if (!isShown && resumed > 0) info(`continuing after ${resumed} of ${total} rows; --restart begins again`)
    const now = performance.now()
    const rate = rateText({ ...progress, resumed: first }, (now - start) / 1000)
    if (process.stderr.isTTY) {
      if (!isShown) bar.start(total, done, { rate })
      bar.update(done, { rate })
    } else if (now - lastLine >= LINE_INTERVAL) {
      lastLine = now
      info(`${name}: ${done} of ${total} rows, ${rate}${errors > 0 ? `, ${errors} with errors` : ''}`)
    }
    isShown = true
  }
  return { update, seconds: () => (performance.now() - start) / 1000, stop: () => (isShown ? bar.stop() : undefined) }
}
