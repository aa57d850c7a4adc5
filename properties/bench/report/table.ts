import type { ContextSteps } from '../measure/context-steps.js'
import type { Figure, Kind } from '../measure/measure.js'
import type { Result } from './summary.js'

const heads: Readonly<Record<Figure, string>> = {
  load_s: 'load s',
  vision_s: 'vision s',
  prefill_s: 'first token s',
  decode_tokens_per_s: 'tokens/s',
  step_s: 'step s',
  trained_tokens_per_s: 'tokens/s',
  peak_rss_mb: 'peak MB'
}

const digits = (figure: Figure, value: number): string => value.toFixed(figure === 'peak_rss_mb' ? 0 : value >= 100 ? 1 : 2)

export const nameOf = ({ engine, dtype }: { readonly engine: string; readonly dtype: string }): string => `${engine} ${dtype}`

/** `1 tile`, `4000 tokens of context`, `8 rows`. */
export const caseName = (kind: Kind, size: number): string =>
  kind === 'load'
    ? 'loading'
    : `${size} ${{ tiles: 'tile', context: 'token', batch: 'row', train: 'row' }[kind]}${size === 1 ? '' : 's'}${{ context: ' of text', train: ' to train on', tiles: '', batch: '' }[kind]}`

/** Rows of cells as text: the first column left-aligned, the others right-aligned. */
export const aligned = (rows: ReadonlyArray<readonly string[]>): string => {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
  const line = (row: readonly string[]) =>
    row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!))).join('  ')
  return rows.map((row) => line(row).trimEnd()).join('\n')
}

const cells = (result: Result, columns: readonly Figure[]): readonly string[] => {
  const cell = (figure: Figure) => {
    const [best, median] = [result[figure], result.median[figure]]
    if (best === undefined) return ''
    const [a, b] = [digits(figure, best), digits(figure, median ?? best)]
    return a === b ? a : `${a} (${b})`
  }
  return [nameOf(result), ...columns.map(cell)]
}

const ratioCells = ({ versus }: Result, columns: readonly Figure[]): ReadonlyArray<readonly string[]> => {
  if (!versus) return []
  const cell = (figure: Figure) => (versus.ratio[figure] === undefined ? '' : `${versus.ratio[figure].toFixed(2)}x`)
  return [[`  of ${nameOf(versus)}`, ...columns.map(cell)]]
}

/** A table of the results of one case: best values, medians in brackets, ratios to the rival below. */
export const table = (results: readonly Result[]): string => {
  const { kind, size, tokens } = results[0]!
  const columns = (Object.keys(heads) as Figure[]).filter((figure) => results.some((result) => result[figure] !== undefined))
  const prompt =
    kind === 'tiles' || kind === 'batch' ? `, ${tokens} tokens of prompt` : kind === 'train' ? `, ${tokens} tokens` : ''
  const rows = results.flatMap((result) => [cells(result, columns), ...ratioCells(result, columns)])
  return aligned([[`${caseName(kind, size)}${prompt}`, ...columns.map((figure) => heads[figure])], ...rows])
}

const shareLine = (name: string, [short, long]: readonly [number, number], share: number, how: string): string =>
  `${name}: at ${long} tokens of text ${share.toFixed(2)}x its speed at ${short} (${how})`

/**
 * Decoding speed at the longest context as a share of the speed at the shortest: of steps in turn in one process, then, for contenders
 * without such steps, of the best runs of separate processes.
 */
export const contextShares = (results: readonly Result[], inTurn: readonly ContextSteps[]): readonly string[] => {
  const texts = results.filter(({ kind }) => kind === 'context')
  const lines = inTurn.map((found) => {
    const [short, long] = found.seconds
    const times = `${(1000 * long).toFixed(1)} and ${(1000 * short).toFixed(1)} ms a token, medians of ${found.steps} steps each, in turn`
    return shareLine(nameOf(found), found.sizes, short / long, times)
  })
  const others = new Set(texts.map(nameOf).filter((name) => !inTurn.some((found) => nameOf(found) === name)))
  const separate = [...others].flatMap((name) => {
    const lengths = texts.filter((result) => nameOf(result) === name).sort((a, b) => a.size - b.size)
    const [short, long] = [lengths[0]!, lengths.at(-1)!]
    if (short.size === long.size) return []
    const share = long.decode_tokens_per_s! / short.decode_tokens_per_s!
    return [shareLine(name, [short.size, long.size], share, 'separate processes')]
  })
  return [...lines, ...separate]
}

const shown = 5

/** Losses of the first training steps and memory after some steps, for results that have them. */
export const trainingNotes = (results: readonly Result[]): readonly string[] =>
  results.flatMap((result) => {
    const { losses, memory } = result
    if (!losses || !memory) return []
    const marks = memory.map(([step, megabytes]) => `${megabytes.toFixed(0)} MB after step ${step}`)
    return [
      `${nameOf(result)}: losses ${losses
        .slice(0, shown)
        .map((loss) => loss.toFixed(5))
        .join(' ')}; ${marks.join(', ')}`
    ]
  })
