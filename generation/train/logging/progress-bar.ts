import type { TrainerCallback } from '../trainer.js'

const significant = (x: number): string => (x === 0 ? '0' : Math.abs(x) < 1e-3 ? x.toExponential(2) : x.toPrecision(4))

/** Metrics on one line: `loss 0.1234, accuracy 0.99`. */
const formatMetrics = (metrics: Readonly<Record<string, number>>): string =>
  Object.entries(metrics)
    .map(([name, x]) => `${name} ${significant(x)}`)
    .join(', ')

/** Seconds in readable units: `1 h 02 min`, `4 min`, `50 s`. */
export const formatDuration = (seconds: number): string => {
  const minutes = Math.round(seconds / 60)
  if (seconds < 90) return `${Math.round(seconds)} s`
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, '0')} min`
}

/** Number of steps over which progress and plots average. */
export const averagedSteps = 10

/** The mean of the last `averagedSteps` numbers, of all numbers at the beginning. There is no start value that could bias the mean. */
export const meanOfLast = () => {
  const window: number[] = []
  return (x: number): number => {
    window.push(x)
    if (window.length > averagedSteps) window.shift()
    return window.reduce((sum, value) => sum + value, 0) / window.length
  }
}

/** The report of a step in pieces, the most important first. */
const stepStatus = (totalSteps: () => number) => {
  const [meanLoss, meanSeconds, meanTokens] = [meanOfLast(), meanOfLast(), meanOfLast()]
  return ({
    step,
    loss,
    learningRate,
    metrics = {},
    tokens,
    seconds,
    communication
  }: Parameters<NonNullable<TrainerCallback['onStepEnd']>>[0]) => {
    const [perStep, tokensPerStep] = [meanSeconds(seconds), meanTokens(tokens)]
    const left = formatDuration(perStep * Math.max(0, totalSteps() - step))
    return [
      `loss ${meanLoss(loss).toFixed(4)}`,
      `${left} left`,
      ...(metrics['rewards/margins'] === undefined ? [] : [`margin ${significant(metrics['rewards/margins'])}`]),
      ...(metrics['rewards/accuracies'] === undefined ? [] : [`pairs ${(100 * metrics['rewards/accuracies']).toFixed(0)} %`]),
      `lr ${learningRate.toExponential(2)}`,
      `${Math.round(tokensPerStep / perStep)} tokens/s`,
      ...(communication
        ? [
            `${(communication.bytes / 1e6).toFixed(1)} MB and ${Math.round((100 * communication.seconds) / seconds)} % of the step between workers`
          ]
        : [])
    ]
  }
}

/** A bar with counts and as many of the pieces of text as fit into `columns` characters; the bar takes the rest, up to 24 characters. */
export const barLine = (step: number, steps: number, pieces: readonly string[], columns: number): string => {
  const counts = `${step}/${steps}`
  const fits = (n: number) => [counts, pieces.slice(0, n).join(', ')].join(' ').length <= columns
  const shown = [...pieces.keys()].reverse().find((i) => fits(i + 1))
  const text = [counts, ...(shown === undefined ? [] : [pieces.slice(0, shown + 1).join(', ')])].join(' ').slice(0, columns)
  const width = Math.min(24, columns - text.length - 1)
  if (width < 4) return text
  const filled = Math.round((width * Math.min(step, steps)) / Math.max(1, steps))
  return `${'█'.repeat(filled)}${'░'.repeat(width - filled)} ${text}`
}

/** Stream on which progress is shown: standard error. */
export interface ProgressStream {
  readonly isTTY?: boolean
  readonly columns?: number
  readonly write: (text: string) => unknown
}

export interface ProgressOptions {
  /** Total number of steps. */
  readonly steps: () => number
  /** Without a terminal: steps between two lines. Default: 50. */
  readonly logSteps?: number
  readonly stream?: ProgressStream
}

export interface ProgressCallback extends TrainerCallback {
  /** Writes a line above the bar. Other messages during training should use this function, so that bar and message stay apart. */
  readonly print: (line: string) => void
}

/** Shows progress: on a terminal a bar in the last line, elsewhere a line every `logSteps` steps. */
export const progressCallback = ({ steps, logSteps = 50, stream = process.stderr }: ProgressOptions): ProgressCallback => {
  const status = stepStatus(steps)
  let bar: string | undefined
  const clear = (): void => void (bar !== undefined && stream.write('\r\x1b[K'))
  const draw = (step: number, pieces: readonly string[]): void => {
    clear()
    bar = barLine(step, steps(), pieces, (stream.columns ?? 80) - 1) // the last column stays free: some terminals wrap there
    stream.write(bar)
  }
  const print = (line: string): void => {
    clear()
    stream.write(`${line}\n`)
    if (bar !== undefined) stream.write(bar)
  }
  return {
    print,
    onTrainBegin: (step) => stream.isTTY && draw(step, []),
    onStepEnd: (report) => {
      const pieces = status(report)
      if (stream.isTTY) draw(report.step, pieces)
      else if (report.step % logSteps === 0) print(`step ${report.step}: ${pieces.join(', ')}`)
    },
    onEvaluate: (step, metrics) => print(`step ${step}: validation: ${formatMetrics(metrics)}`),
    onSave: (step, path) => print(`step ${step}: saved ${path}`),
    onTrainEnd: () => {
      if (bar !== undefined) stream.write('\n') // the finished bar stays, and the next line begins below
      bar = undefined
    }
  }
}
