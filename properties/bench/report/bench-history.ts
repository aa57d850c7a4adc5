import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { appendFile, mkdir, writeFile } from 'node:fs/promises'
import { cpus } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { linePlots, type Panel } from '../../../generation/plot.js'
import type { ContextSteps } from '../measure/context-steps.js'
import type { MachinePeaks } from '../measure/machine-peaks.js'
import type { Figure } from '../measure/measure.js'
import { workshop } from '../peers/python.js'
import type { Result } from './summary.js'
import { caseName, nameOf } from './table.js'

/** Results of one bench run for one checkpoint, with commit, date and machine. */
export interface Entry {
  readonly commit: string
  /** ISO 8601. */
  readonly date: string
  readonly machine: string
  readonly checkpoint: string
  readonly runs: number
  readonly rounds: number
  /** Limits of the machine, measured in the same run with `--roofline`. */
  readonly peaks?: MachinePeaks
  readonly results: readonly Result[]
  /** Steps after the shortest and the longest context, in turn in one process. */
  readonly contextSteps?: readonly ContextSteps[]
}

export const defaultHistory: string = join(workshop, 'history.jsonl')

/** Short hash of the checked-out commit; a `+` marks uncommitted changes. */
export const commitName = (): string => {
  const git = (...args: readonly string[]) => spawnSync('git', args, { encoding: 'utf8' }).stdout?.trim() ?? ''
  return `${git('rev-parse', '--short', 'HEAD') || 'unknown'}${git('status', '--porcelain', '--untracked-files=no') ? '+' : ''}`
}

export const machineName = (): string => `${cpus()[0]?.model.trim()}, ${cpus().length} cores, Node ${process.versions.node}`

/** A checkpoint's name: the last part of its path. */
export const checkpointName = (folder: string): string => basename(folder)

/** Entries of a history file. Throws a `RangeError` that names the first invalid line. */
export const readHistory = (file: string): readonly Entry[] => {
  if (!existsSync(file)) return []
  return readFileSync(file, 'utf8')
    .split('\n')
    .flatMap((line, i) => {
      if (line.trim() === '') return []
      try {
        const entry = JSON.parse(line)
        if (typeof entry.commit === 'string' && Array.isArray(entry.results)) return [entry as Entry]
      } catch {
        // reported below
      }
      throw new RangeError(`${file}:${i + 1}: no entry of a history; name another file with --history FILE`)
    })
}

const panels: ReadonlyArray<readonly [Figure, string]> = [
  ['decode_tokens_per_s', 'tokens a second'],
  ['prefill_s', 'first token, seconds'],
  ['vision_s', 'vision, seconds'],
  ['load_s', 'loading, seconds'],
  ['step_s', 'a training step, seconds'],
  ['peak_rss_mb', 'peak memory, MB']
]

/** One panel a figure, one line a contender and case, over the commits. Only entries with the last entry's machine and checkpoint count. */
export const historyPanels = (entries: readonly Entry[]): readonly Panel[] => {
  const last = entries.at(-1)
  const alike = entries.filter(({ machine, checkpoint }) => machine === last?.machine && checkpoint === last.checkpoint)
  const lines = (figure: Figure) => {
    const points = alike.flatMap(({ commit, date, results }) =>
      results.flatMap((result) => {
        const y = result[figure]
        const x = `${commit} ${date.slice(5, 16).replace('T', ' ')}`
        return y === undefined
          ? []
          : [{ name: `${nameOf(result)}, ${caseName(result.kind, result.size)}`, point: [x, y] as const }]
      })
    )
    const names = [...new Set(points.map(({ name }) => name))]
    return names.map((name) => ({ name, points: points.flatMap((p) => (p.name === name ? [p.point] : [])), dots: true }))
  }
  return panels.flatMap(([figure, y]) => {
    const series = lines(figure)
    return series.length > 0 ? [{ title: `${last!.checkpoint}: ${y}`, x: 'commit', y, series }] : []
  })
}

/** Appends entries to the file, plots the whole history as a PNG beside the file, and returns the PNG's path. */
export const appendHistory = async (file: string, added: readonly Entry[]): Promise<string> => {
  const before = readHistory(file)
  await mkdir(dirname(file), { recursive: true })
  await appendFile(file, added.map((entry) => `${JSON.stringify(entry)}\n`).join(''))
  const plot = `${file.replace(/\.jsonl?$/, '')}.png`
  await writeFile(plot, await linePlots(historyPanels([...before, ...added])))
  return plot
}
