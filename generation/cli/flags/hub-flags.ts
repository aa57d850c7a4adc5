import { MultiBar, type SingleBar } from 'cli-progress'
import type { HubOptions, HubProgress } from '../../hub/index.js'

/** Bytes as a person reads them: `512 B`, `4.2 kB`, `1.9 GB`. */
export const bytesText = (bytes: number): string => {
  const power = Math.min(3, Math.floor(Math.log10(Math.max(1, bytes)) / 3))
  return power === 0 ? `${bytes} B` : `${(bytes / 1000 ** power).toFixed(1)} ${['B', 'kB', 'MB', 'GB'][power]}`
}

/** Seconds that are left; not known until something has come. */
const timeText = (seconds: number): string => {
  if (!Number.isFinite(seconds)) return '?'
  return seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.ceil(seconds / 60)} min`
}

/** How a download is shown, line by line. */
interface View {
  readonly show: (progress: HubProgress) => void
  readonly say: (line: string) => void
  readonly end: () => void
}

/** A bar for each file that is under way and one over all, on a terminal. */
const barsOn = (stream: NodeJS.WriteStream, name: string): View => {
  const format = (value: number, _options: object, type: string) =>
    type === 'value' || type === 'total' ? bytesText(value) : String(value)
  const layout = '{file} [{bar}] {percentage} % {value} of {total}, {eta_formatted} left'
  const drawn = { format: layout, formatValue: format, formatTime: timeText, hideCursor: true, clearOnComplete: true }
  const multi = new MultiBar({ ...drawn, stream, gracefulExit: false }) // its own way to end on Ctrl-C would swallow the signal
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
  return { show, say: (line) => multi.log(`${line}\n`), end }
}

/** A line when a file begins, and one for each tenth of all. */
const linesOn = (stream: NodeJS.WritableStream, name: string): View => {
  const begun = new Set<string>()
  let tenths = 0
  const say = (line: string): void => void stream.write(`${line}\n`)
  const show = ({ file, done, total, allDone, allTotal }: HubProgress): void => {
    if (!begun.has(file)) {
      const kept = done > 0 && done < total ? `, ${bytesText(done)} of it are here already` : ''
      say(`downloading ${name}/${file} (${bytesText(total)}${kept})`)
    }
    begun.add(file)
    const now = Math.floor((10 * allDone) / Math.max(1, allTotal))
    if (now > tenths) say(`downloaded ${bytesText(allDone)} of ${bytesText(allTotal)}`)
    tenths = now
  }
  return { show, say, end: () => undefined }
}

/** What tells a person about a download: bars on a terminal, plain lines elsewhere; nothing at all where nothing is fetched. */
export const hubView = (name: string, stream: NodeJS.WriteStream = process.stderr) => {
  let view: View | undefined
  const open = (): View => {
    view ??= stream.isTTY ? barsOn(stream, name) : linesOn(stream, name)
    return view
  }
  const options: HubOptions = {
    onDownload: (progress) => open().show(progress),
    onRemark: (line) => (view ? view.say(line) : void stream.write(`${line}\n`))
  }
  return { options, end: (): void => view?.end() }
}
