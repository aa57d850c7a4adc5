import fc from 'fast-check'
import { random } from '../../lib/random.js'
import type { CorpusEntry } from './corpus.js'
import type { FuzzKind } from './kinds/fuzz-kind.js'
import { isFinding, type Problem, type Verdict } from './verdict.js'
import { defaultLimits, type Limits, type WatchedChild, watchedChild } from './watched-child.js'

/** Number of inputs of a kind, by outcome. */
export interface Tally {
  readonly inputs: number
  readonly accepted: number
  readonly refused: number
  readonly findings: number
}

export interface FuzzOptions {
  readonly seed: number
  readonly kinds: readonly FuzzKind[]
  /** Index of the first input of each kind. */
  readonly from?: number
  /** Stops when true; asked before each input with the number of inputs so far. */
  readonly isDone: (inputs: number) => boolean
  /** Number of child processes. */
  readonly children?: number
  readonly limits?: Limits
  /** Longest time for making the input of a finding smaller, in seconds. */
  readonly minimizeSeconds?: number
  /** Called with the first finding of each sort, its input made smaller. */
  readonly onFinding?: (finding: CorpusEntry) => void
}

/** Seed of one input: a function of the run's seed, the kind's name, and the index of the input among those of its kind. */
const inputSeed = (seed: number, kind: string, index: number): number =>
  random(seed, ...Array.from(kind, (letter) => letter.charCodeAt(0)), index).integer(0, 2 ** 31 - 1)

/** The input with an index. */
export const inputAt = (kind: FuzzKind, seed: number, index: number): unknown =>
  fc.sample(kind.arbitrary, { seed: inputSeed(seed, kind.name, index), numRuns: 1 })[0]

/** Findings of one sort have the same problem, and messages that differ only in numbers, paths and quoted names. */
const sortOf = (kind: string, { outcome, detail }: Verdict): string => {
  const [message = '', ...rest] = detail.split('\n')
  const frame = outcome === 'error' ? (rest.find((line) => !line.includes('node_modules')) ?? '') : ''
  const general = message
    .replace(/(["'`]).*\1/g, '…')
    .replace(/\/\S+/g, '…')
    .replace(/-?\d[\d.e+]*/g, '#')
    .slice(0, 120)
  return `${kind}: ${outcome}: ${outcome === 'crash' ? general.split('\n')[0] : general} ${frame.trim()}`
}

/** A smaller input with a finding of the same sort, by fast-check's shrinking; the input itself where none is found. */
const minimize = async (
  { name, arbitrary }: FuzzKind,
  seed: number,
  input: unknown,
  verdict: Verdict,
  child: WatchedChild,
  seconds: number
): Promise<unknown> => {
  const sort = sortOf(name, verdict)
  const deadline = performance.now() + seconds * 1000
  const property = fc.asyncProperty(arbitrary, async (smaller) => {
    if (performance.now() > deadline) return true
    return sortOf(name, await child.run({ kind: name, input: smaller })) !== sort
  })
  const { counterexample } = await fc.check(property, { seed, numRuns: 1 })
  return counterexample ? counterexample[0] : input
}

/**
 * Runs inputs of all kinds in turn in child processes, until `isDone`. Every input is determined by the seed, its kind and its index;
 * only the number of inputs depends on the time. Returns the numbers of inputs of each kind.
 */
export const fuzz = async ({
  seed,
  kinds,
  from = 0,
  isDone,
  children = 2,
  limits = defaultLimits,
  minimizeSeconds = 15,
  onFinding
}: FuzzOptions): Promise<ReadonlyMap<string, Tally>> => {
  const tallies = new Map<string, Tally>(kinds.map(({ name }) => [name, { inputs: 0, accepted: 0, refused: 0, findings: 0 }]))
  const sorts = new Set<string>()
  let next = 0

  const count = (kind: string, verdict: Verdict): void => {
    const { inputs, accepted, refused, findings } = tallies.get(kind)!
    const is = (outcome: string) => (verdict.outcome === outcome ? 1 : 0)
    tallies.set(kind, {
      inputs: inputs + 1,
      accepted: accepted + is('accepted'),
      refused: refused + is('refused'),
      findings: findings + (isFinding(verdict) ? 1 : 0)
    })
  }

  const worker = async (): Promise<void> => {
    const child = watchedChild(limits)
    try {
      while (!isDone(next)) {
        const turn = next++
        const kind = kinds[turn % kinds.length]!
        const index = from + Math.floor(turn / kinds.length)
        const input = inputAt(kind, seed, index)
        const verdict = await child.run({ kind: kind.name, input })
        count(kind.name, verdict)
        if (!isFinding(verdict) || sorts.has(sortOf(kind.name, verdict))) continue
        sorts.add(sortOf(kind.name, verdict))
        const isSlow = verdict.outcome === 'hang' || verdict.outcome === 'memory' // each smaller input would take as long
        const smaller = isSlow
          ? input
          : await minimize(kind, inputSeed(seed, kind.name, index), input, verdict, child, minimizeSeconds)
        onFinding?.({ kind: kind.name, problem: verdict.outcome as Problem, detail: verdict.detail, seed, index, input: smaller })
      }
    } finally {
      await child.close()
    }
  }
  await Promise.all(Array.from({ length: children }, worker))
  return tallies
}
