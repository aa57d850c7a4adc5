import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { linePlot } from '../../plot.js'
import type { Metrics, TrainerCallback } from '../trainer.js'
import { averagedSteps, meanOfLast } from './progress-bar.js'

/** One line of `train.jsonl`: a step or an evaluation. */
interface LogEntry {
  readonly step: number
  readonly loss?: number
  readonly validation?: Metrics
  readonly heldOut?: Metrics // alias of `validation` in logs before 0.2
}

/** Logs a line of JSON for each step and each evaluation. A resumed run drops the lines of steps after its checkpoint. */
export const jsonlLogger = (file: string): TrainerCallback => {
  // synchronous: the event loop turns only once a step, and a killed run keeps the lines of its steps
  const append = (entry: unknown): void => appendFileSync(file, `${JSON.stringify(entry)}\n`)
  const restart = (step: number): void => {
    mkdirSync(dirname(file), { recursive: true })
    const lines = existsSync(file) ? readFileSync(file, 'utf8').split('\n').slice(0, -1) : []
    const earlier = lines.filter((line) => (JSON.parse(line) as LogEntry).step <= step)
    writeFileSync(file, earlier.map((line) => `${line}\n`).join(''))
  }
  return {
    onTrainBegin: restart,
    onStepEnd: append,
    onEvaluate: (step, validation) => append({ step, validation } satisfies LogEntry)
  }
}

/** Plots the losses that `jsonlLogger` wrote into an image when training ends. */
export const lossPlotter = (logFile: string, image: string): TrainerCallback => ({
  onTrainEnd: async () => {
    const text = await readFile(logFile, 'utf8').catch(() => '')
    const entries = text.split('\n').slice(0, -1).map((line) => JSON.parse(line) as LogEntry) // biome-ignore format: one line
    const steps = entries.flatMap(({ step, loss }) => (loss === undefined ? [] : [[step, loss] as const]))
    if (steps.length === 0) return
    const mean = meanOfLast()
    const metricsOf = (entry: LogEntry) => entry.validation ?? entry.heldOut // the alias keeps old logs readable
    const validation = entries.flatMap((entry) => {
      const metrics = metricsOf(entry)
      return metrics ? [[entry.step, metrics.loss] as const] : []
    })
    const series = [
      { name: 'loss', points: steps, dots: false },
      { name: `mean of ${averagedSteps} steps`, points: steps.map(([step, loss]) => [step, mean(loss)] as const), dots: false },
      ...(validation.length > 0 ? [{ name: 'validation', points: validation }] : [])
    ]
    await writeFile(image, await linePlot(series, { title: 'Training', x: 'step', y: 'loss' }))
  }
})
