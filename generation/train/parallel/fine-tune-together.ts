import { countBuckets } from '../../../lib/distributed/buckets.js'
import type { WorkerGroup } from '../../../lib/distributed/worker-group.js'
import { selectEngine } from '../../../lib/engines/index.js'
import { errorText, getOrThrow, InternVLError } from '../../../lib/error.js'
import { namedParameters } from '../../../lib/params.js'
import type { InternVLCheckpoint } from '../../checkpoint/load.js'
import { folderIdentity } from '../../evaluate/folder-identity.js'
import type { PreflightResult } from '../preflight.js'
import { dataDigest } from '../resume.js'
import type { TrainConfig } from '../train-config.js'
import type { LossMetrics } from '../training-loop.js'
import type { Parallel } from './data-parallel.js'
import { expectAgreement } from './worker-agreement.js'
import { type WorkerShare, workerShare } from './worker-share.js'

/** This worker's share of each step. Throws an `InternVLError` where the workers cannot share the samples evenly. */
export const shareOf = ({ group }: Parallel, c: TrainConfig): WorkerShare =>
  getOrThrow(
    workerShare(group.rank, group.size, {
      batchSize: c['batch.size'],
      gradientAccumulation: c['batch.gradientAccumulation']
    })
  )

/** Runs the checks of this worker and compares their results with those of the others: all workers begin, or none. Collective. */
export const checkTogether = async (
  parallel: Parallel,
  internvl: InternVLCheckpoint,
  settings: TrainConfig,
  check: () => Promise<PreflightResult>
): Promise<PreflightResult> => {
  const { group, zero } = parallel
  shareOf(parallel, settings)
  const found = await check().catch((error: unknown) => {
    if (error instanceof InternVLError) return error
    throw error
  })
  if (found instanceof InternVLError) {
    await expectAgreement(group, { facts: undefined, errors: found.issues.map(({ message }) => message) })
    throw found
  }
  const [identity, engine] = [await folderIdentity(internvl.dir), await selectEngine()]
  const facts = {
    ...{ model: identity.slice(0, 12), data: found.dataDigest, workers: group.addresses.join(','), zero, settings },
    validation: found.validation ? dataDigest(found.validation) : '',
    versions: `Node.js ${process.versions.node.split('.')[0]}, TensorFlow ${engine.version}`
  }
  await expectAgreement(group, { facts, errors: [] })
  return found
}

/** Sizes in bytes that several workers share, for a message. */
export interface SharedSizes {
  readonly workers: number
  /** Gradients that each step sums, and the number of collective operations. */
  readonly gradients: number
  readonly buckets: number
  /** State of the optimizer by worker. */
  readonly optimizer: readonly number[]
}

/** Calls `onParallel` on worker 0. Collective. */
export const announce = async (
  { group, zero }: Parallel,
  params: unknown,
  { onParallel }: { readonly onParallel?: (sizes: SharedSizes) => void }
): Promise<void> => {
  const sizes = namedParameters(params).map(([, leaf]) => leaf.size)
  const sum = (numbers: readonly number[]) => numbers.reduce((total, n) => total + n, 0)
  const retained = zero === 0 ? sum(sizes) : sum(sizes.map((n) => Math.ceil(n / group.size)))
  const optimizer = await group.gather(2 * 4 * retained)
  if (group.rank === 0) onParallel?.({ workers: group.size, gradients: 4 * sum(sizes), buckets: countBuckets(params), optimizer })
}

type Weighted = readonly [metrics: LossMetrics, weight: number]

/** The metrics of the batches of all workers. Collective. */
export const gatherMetrics = async (group: WorkerGroup, found: readonly Weighted[]): Promise<readonly Weighted[]> => {
  const all = (await group.gather<readonly Weighted[]>(found)).flat()
  const numbers = (metrics: LossMetrics): LossMetrics =>
    Object.fromEntries(Object.entries(metrics).map(([name, x]) => [name, x ?? Number.NaN])) // JSON has no NaN
  return all.map(([metrics, weight]) => [numbers(metrics), weight])
}

/** Errors that every worker finds by itself. */
const sharedErrors = [
  'WorkerGone',
  'WorkerFailed',
  'WorkerRefused',
  'WorkersDiffer',
  'ClocksDiffer',
  'WorkerShare',
  'ParametersDiffer'
]

/** Tells the other workers why this one fails, unless they know. */
export const reportFailure = (group: WorkerGroup, error: unknown): void => {
  if (error instanceof InternVLError && sharedErrors.includes(error.issues[0]._tag)) return
  group.reportError(errorText(error).split('\n')[0]!)
}
