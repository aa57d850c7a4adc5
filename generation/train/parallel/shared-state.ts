import { allReduceTree, gatherSlices, ownSlices } from '../../../lib/distributed/buckets.js'
import { parameterHash, workerName } from '../../../lib/distributed/worker-group.js'
import { InternVLError, issue } from '../../../lib/error.js'
import type { AdamWState, Optimizer } from '../../../lib/optim/adamw.js'
import { disposeParams, mapParams, namedParameters } from '../../../lib/params.js'
import { tf } from '../../../lib/tf.js'
import type { TrainState } from '../training-loop.js'
import type { Parallel } from './data-parallel.js'

/** The tree of worker 0 on every worker. Consumes the tree. */
const treeOfFirst = <P>({ group }: Parallel, tree: P): Promise<P> => {
  if (group.rank === 0) return allReduceTree(group, tree)
  const zeros = mapParams((leaf) => tf.zerosLike(leaf))(tree)
  disposeParams(tree)
  return allReduceTree(group, zeros)
}

/** Moments as each worker keeps them. Consumes the moments. */
const slicesOf = <A>({ group, zero }: Parallel, moments: A): A => {
  if (zero === 0) return moments
  const slices = ownSlices(group, moments)
  disposeParams(moments)
  return slices
}

/** The initial state of an optimizer, of the slices of this worker where its state is shared out. */
export const sharedInit = <P>({ group, zero }: Parallel, params: P, optimizer: Optimizer<AdamWState>): AdamWState => {
  if (zero === 0) return optimizer.init(params)
  const slices = ownSlices(group, params)
  try {
    return optimizer.init(slices)
  } finally {
    disposeParams(slices)
  }
}

/**
 * The state of worker 0 on every worker, as each keeps it. `state` is whole on worker 0; elsewhere its tensors give shapes only.
 * Consumes `state`.
 */
export const shareState = async <P>(parallel: Parallel, state: TrainState<P>): Promise<TrainState<P>> => {
  const { step, position, lossState, lossScale } = state
  const fields = { step, position, lossState, ...(lossScale ? { lossScale } : {}) }
  const counts = await parallel.group.broadcast({ ...fields, optimizerStep: state.optimizer.step })
  const params = await treeOfFirst(parallel, state.params)
  const first = slicesOf(parallel, await treeOfFirst(parallel, state.optimizer.first))
  const second = slicesOf(parallel, await treeOfFirst(parallel, state.optimizer.second))
  const { optimizerStep, ...rest } = counts
  return { ...rest, params, optimizer: { step: optimizerStep, first, second } }
}

/** The whole state of the optimizer, with the function that disposes its tensors where they are copies. Collective. */
export const wholeOptimizer = async <P>({ group, zero }: Parallel, { params, optimizer }: TrainState<P>) => {
  if (zero === 0) return { optimizer, dispose: () => {} }
  const shapes = new Map(namedParameters(params).map(([path, leaf]) => [path, leaf.shape]))
  // a record by path nests differently from the tree, so its keys are the paths
  const whole = (moments: AdamWState['first']) => gatherSlices(group, mapParams((leaf) => leaf.clone())(moments), shapes)
  const first = await whole(optimizer.first)
  const second = await whole(optimizer.second)
  return { optimizer: { ...optimizer, first, second }, dispose: () => disposeParams([first, second]) }
}

/** Throws an `InternVLError` that names the workers whose parameters differ from those of worker 0. Collective. */
export const expectEqualParameters = async <P>({ group }: Parallel, { params, step }: TrainState<P>): Promise<void> => {
  const hashes = await group.gather(parameterHash(params))
  const others = hashes.flatMap((hash, rank) => (hash === hashes[0] ? [] : [workerName(group.addresses, rank)]))
  if (others.length === 0) return
  const message = `step ${step}: the parameters of ${others.join(', ')} differ from those of worker 0; machines with different processors stay equal with --zero 1`
  throw new InternVLError([issue('ParametersDiffer', message, { step })])
}
