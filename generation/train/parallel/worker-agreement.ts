import { type WorkerGroup, workerName } from '../../../lib/distributed/worker-group.js'
import { InternVLError, type Issue, issue } from '../../../lib/error.js'

/** Facts of a run that must be the same on all workers. */
export interface RunFacts {
  /** Identity of the model by content. */
  readonly model: string
  /** Versions of Node.js and TensorFlow. */
  readonly versions: string
  /** Digests of the training data and of the validation set. */
  readonly data: string
  readonly validation: string
  /** Settings by name. */
  readonly settings: Readonly<Record<string, unknown>>
  /** `--workers` of the worker, and its ZeRO stage. */
  readonly workers: string
  readonly zero: number
}

/** The results of a worker's checks. */
export interface WorkerReport {
  readonly facts: RunFacts | undefined
  /** Messages of the errors that the checks found. */
  readonly errors: readonly string[]
  /** Time of the worker's clock, in milliseconds since 1970. */
  readonly clock: number
}

/** Settings that may differ: paths of a machine, and those that only worker 0 reads. */
const localSettings = /^(model|output|data|validation|save\.(keepLast|dtype)|log\..*)$/

/** Difference of two clocks from which they count as wrong: an hour. */
const maxClockDifference = 3600 * 1000 // ms

const hours = (ms: number): string => `${(Math.abs(ms) / 3.6e6).toFixed(1)} hours`

/** Differences between a worker and worker 0, as sentences. */
const differences = (name: string, first: RunFacts, facts: RunFacts): readonly Issue[] => {
  const differs = (key: Exclude<keyof RunFacts, 'settings'>, message: string): readonly Issue[] =>
    first[key] === facts[key]
      ? []
      : [issue('WorkersDiffer', `${name}: ${message}`, { key, expected: first[key], actual: facts[key] })]
  const names = [...new Set([...Object.keys(first.settings), ...Object.keys(facts.settings)])].filter(
    (key) => !localSettings.test(key)
  )
  const text = (settings: RunFacts['settings'], key: string) => JSON.stringify(settings[key]) ?? 'missing'
  return [
    ...differs('versions', `the versions are ${facts.versions}, those of worker 0 are ${first.versions}; install the same`),
    ...differs('workers', `--workers is ${facts.workers}, that of worker 0 is ${first.workers}; give all the same list`),
    ...differs('zero', `--zero is ${facts.zero}, that of worker 0 is ${first.zero}; give all the same`),
    ...differs(
      'model',
      `the model has another content (${facts.model}) than that of worker 0 (${first.model}); copy the same folder to every machine`
    ),
    ...differs('data', 'the training data differs from that of worker 0; copy the same files to every machine'),
    ...differs('validation', 'the validation set differs from that of worker 0; copy the same file to every machine'),
    ...names
      .filter((key) => text(first.settings, key) !== text(facts.settings, key))
      .map((key) => {
        const message = `${name}: ${key} is ${text(facts.settings, key)}, that of worker 0 is ${text(first.settings, key)}; use the same settings`
        return issue('WorkersDiffer', message, { key })
      })
  ]
}

/** Errors of the reports of all workers, by rank: errors of single workers, differences to worker 0, and clocks that differ by hours. */
export const agreementIssues = (addresses: readonly string[], reports: readonly WorkerReport[]): readonly Issue[] => {
  const [first] = reports
  return reports.flatMap(({ facts, errors, clock }, rank) => {
    const name = workerName(addresses, rank)
    const difference = clock - first!.clock
    const advice = 'set the time of both machines, as with `timedatectl set-ntp true`'
    return [
      ...errors.map((message) => issue('WorkerRefused', `${name}: ${message}`, { rank })),
      ...(facts && first!.facts ? differences(name, first!.facts, facts) : []),
      ...(Math.abs(difference) < maxClockDifference
        ? []
        : [
            issue(
              'ClocksDiffer',
              `${name}: the clock is ${hours(difference)} ${difference > 0 ? 'ahead of' : 'behind'} that of worker 0; ${advice}`,
              { rank }
            )
          ])
    ]
  })
}

/** Ends all workers with the errors of each, and their differences, before training begins. Collective. */
export const expectAgreement = async (
  group: WorkerGroup,
  report: Omit<WorkerReport, 'clock'>,
  clock = Date.now()
): Promise<void> => {
  const [first, ...others] = agreementIssues(group.addresses, await group.gather<WorkerReport>({ ...report, clock }))
  if (!first) return
  await group.barrier().catch(() => undefined) // no worker ends before the others have read the reports
  throw new InternVLError([first, ...others])
}
