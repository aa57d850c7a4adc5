import { MultiBar, type SingleBar } from 'cli-progress'
import type { HubOptions, HubProgress } from '../../hub/index.js'

/** Formats bytes: `512 B`, `4.2 kB`, `1.9 GB`. */
export const bytesText = (bytes: number): string => {
  const power = Math.min(3, Math.floor(Math.log10(Math.max(1, bytes)) / 3))
  return power === 0 ? `${bytes} B` : `${(bytes / 1000 ** power).toFixed(1)} ${['B', 'kB', 'MB', 'GB'][power]}`
}

/** Formats the remaining seconds; `?` before the first data arrives. */
const timeText = (seconds: number): string => {
  if (!Number.isFinite(seconds)) return '?'
  return seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.ceil(seconds / 60)} min`
}

/** Displays the progress of a download. */
interface ProgressDisplay {
  readonly show: (progress: HubProgress) => void
  readonly print: (line: string) => void
  readonly end: () => void
}

/** On a terminal: one bar for each active file and one for all files. */
const barsOn = (stream: NodeJS.WriteStream, name: string): ProgressDisplay => {
  const format = (value: number, _options: object, type: string) =>
    type === 'value' || type === 'total' ? bytesText(value) : String(value)
  const layout = '{file} [{bar}] {percentage} % {value} of {total}, {eta_formatted} left'
  const appearance = { format: layout, formatValue: format, formatTime: timeText, hideCursor: true, clearOnComplete: true }
  const multi = new MultiBar({ ...appearance, stream, gracefulExit: false }) // gracefulExit would swallow the signal of Ctrl-C
  const bars = new Map<string, SingleBar>()
  const end = (): void => {
    process.off('SIGINT', interrupt)
    multi.stop()
  }
  const interrupt = (): void => {
    end()
    process.kill(process.pid, 'SIGINT')
  }
  process.once('SIGINT', interrupt)
  const barOf = (file: string, total: number): SingleBar => {
    const bar = bars.get(file) ?? multi.create(total, 0, { file })
    bars.set(file, bar)
    bar.setTotal(total)
    return bar
  }
  const show = ({ file, done, total, allDone, allTotal }: HubProgress): void => {
    barOf(name, allTotal).update(allDone)
    barOf(file, total).update(done)
    if (done < total) return
    multi.remove(bars.get(file)!)
  }
  return { show, print: (line) => multi.log(`${line}\n`), end }
}

/** Elsewhere: a line when a file begins, and a line after each tenth of all bytes. */
const linesOn = (stream: NodeJS.WritableStream, name: string): ProgressDisplay => {
  const started = new Set<string>()
  let tenths = 0
  const print = (line: string): void => void stream.write(`${line}\n`)
  const show = ({ file, done, total, allDone, allTotal }: HubProgress): void => {
    if (!started.has(file)) {
      const resumed = done > 0 && done < total ? `, resuming at ${bytesText(done)}` : ''
      print(`downloading ${name}/${file} (${bytesText(total)}${resumed})`)
    }
    started.add(file)
    const reached = Math.floor((10 * allDone) / Math.max(1, allTotal))
    if (reached > tenths) print(`downloaded ${bytesText(allDone)} of ${bytesText(allTotal)}`)
    tenths = reached
  }
  return { show, print, end: () => undefined }
}

/** Shows downloads: bars on a terminal, plain lines elsewhere. Prints nothing if nothing is downloaded. */
export const hubProgress = (name: string, stream: NodeJS.WriteStream = process.stderr) => {
  let display: ProgressDisplay | undefined
  const open = (): ProgressDisplay => {
    display ??= stream.isTTY ? barsOn(stream, name) : linesOn(stream, name)
    return display
  }
  const options: HubOptions = {
    onDownload: (progress) => open().show(progress),
    onWarning: (line) => (display ? display.print(line) : void stream.write(`${line}\n`))
  }
  return { options, end: (): void => display?.end() }
}
