import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { SingleBar } from 'cli-progress'
import { linePlot } from '../plot.js'
import type { Listener } from './trainer.js'

const significant = (x: number): string => (x === 0 ? '0' : Math.abs(x) < 1e-3 ? x.toExponential(2) : x.toPrecision(4))

/** Numbers as a line: `loss 0.1234, accuracy 0.99`. */
export const numbersText = (numbers: Readonly<Record<string, number>>): string =>
  Object.entries(numbers)
    .map(([name, x]) => `${name} ${significant(x)}`)
    .join(', ')

/** A running mean that forgets: 2 % of each new number, the first as it is. */
export const smoothed = () => {
  let mean: number | undefined
  return (x: number): number => {
    mean = mean === undefined ? x : 0.98 * mean + 0.02 * x
    return mean
  }
}

/** Seconds as people read them: `1 h 02 min`, `4 min`, `50 s`. */
export const duration = (seconds: number): string => {
  const minutes = Math.round(seconds / 60)
  if (seconds < 90) return `${Math.round(seconds)} s`
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, '0')} min`
}

/** Loss, rate, tokens a second and the time left: as text, from the reports so far. */
const statusLine = (stepsOf: () => number | undefined) => {
  const mean = smoothed()
  const [pace, speed] = [smoothed(), smoothed()]
  return ({ step, loss, rate, tokens, seconds }: Parameters<NonNullable<Listener['step']>>[0]): string => {
    const steps = stepsOf()
    const eta = pace(seconds) * Math.max(0, (steps ?? step) - step)
    const left = steps === undefined ? '' : `, ${duration(eta)} left`
    return `loss ${mean(loss).toFixed(4)}, rate ${rate.toExponential(2)}, ${Math.round(speed(tokens / seconds))} tokens/s${left}`
  }
}

/** Progress for a person: a bar on a terminal, a line every `every` steps elsewhere. */
export const progress = ({ steps, every = 50 }: { readonly steps: () => number; readonly every?: number }): Listener => {
  const stream = process.stderr
  const bar = new SingleBar({ format: '{bar} {value}/{total} {status}', stream, hideCursor: true, barsize: 24 })
  const status = statusLine(steps)
  const say = (line: string) => void stream.write(stream.isTTY ? `\r\x1b[K${line}\n` : `${line}\n`)
  return {
    begin: (step) => stream.isTTY && bar.start(steps(), step, { status: '' }),
    step: (report) => {
      const text = status(report)
      if (stream.isTTY) bar.update(report.step, { status: text })
      else if (report.step % every === 0) say(`step ${report.step}: ${text}`)
    },
    evaluated: (step, scores) => say(`step ${step}: held out: ${numbersText(scores)}`),
    saved: (step, path) => say(`step ${step}: saved ${path}`),
    end: () => bar.stop()
  }
}

/** A line of JSON a step and an evaluation; of an earlier run that went further than its last checkpoint, what is done again is dropped. */
export const jsonLines = (file: string): Listener => {
  // at once, not by promises: the event loop turns once a step, and a killed run keeps the lines of its steps
  const append = (entry: unknown): void => appendFileSync(file, `${JSON.stringify(entry)}\n`)
  const restart = (step: number): void => {
    mkdirSync(dirname(file), { recursive: true })
    const lines = existsSync(file) ? readFileSync(file, 'utf8').split('\n').slice(0, -1) : []
    const kept = lines.filter((line) => (JSON.parse(line) as { step: number }).step <= step)
    writeFileSync(file, kept.map((line) => `${line}\n`).join(''))
  }
  return {
    begin: restart,
    step: append,
    evaluated: (step, scores) => append({ step, heldOut: scores })
  }
}

interface LoggedStep {
  readonly step: number
  readonly loss?: number
  readonly heldOut?: { readonly loss: number }
}

/** Draws the losses that `jsonLines` wrote into a picture, when the run is over. */
export const lossPlot = (lines: string, picture: string): Listener => ({
  end: async () => {
    const text = await readFile(lines, 'utf8').catch(() => '')
    const logged = text.split('\n').slice(0, -1).map((line) => JSON.parse(line) as LoggedStep) // biome-ignore format: one line
    const mean = smoothed()
    const steps = logged.flatMap(({ step, loss }) => (loss === undefined ? [] : [[step, loss, mean(loss)] as const]))
    const heldOut = logged.flatMap(({ step, heldOut }) => (heldOut ? [[step, heldOut.loss] as const] : []))
    if (steps.length === 0) return
    const series = [
      { name: 'loss', points: steps.map(([step, loss]) => [step, loss] as const), dots: false },
      { name: 'running mean', points: steps.map(([step, , running]) => [step, running] as const), dots: false },
      ...(heldOut.length > 0 ? [{ name: 'held out', points: heldOut }] : [])
    ]
    await writeFile(picture, await linePlot(series, { title: 'Training', x: 'step', y: 'loss' }))
  }
})
