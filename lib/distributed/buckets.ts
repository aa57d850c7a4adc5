import { mapParams, namedParameters } from '../params.js'
import { tf } from '../tf.js'
import type { WorkerGroup } from './worker-group.js'

/** Numbers of one collective operation: 25 MB. Source: `bucket_cap_mb` of PyTorch's DistributedDataParallel. */
const bucketSize = (25 * 2 ** 20) / 4

/** Consecutive items in groups whose sizes sum to at most `limit`; a larger item is alone in a group. */
export const buckets = <A>(items: readonly A[], sizeOf: (item: A) => number, limit = bucketSize): readonly (readonly A[])[] => {
  const groups: A[][] = []
  let free = 0
  for (const item of items) {
    const size = sizeOf(item)
    if (size > free || groups.length === 0) {
      groups.push([])
      free = limit
    }
    groups.at(-1)!.push(item)
    free -= size
  }
  return groups
}

type Named = readonly [path: string, leaf: tf.Tensor]

const flat = (leaves: readonly tf.Tensor[]): tf.Tensor1D => tf.tidy(() => tf.concat(leaves.map((leaf) => leaf.flatten())))

/** The leaves of a bucket, cut from their concatenation. */
const cut = (bucket: readonly Named[], values: tf.Tensor): readonly Named[] => {
  const at = bucket.map((_, i) => bucket.slice(0, i).reduce((sum, [, leaf]) => sum + leaf.size, 0))
  return bucket.map(([path, leaf], i) => [path, tf.tidy(() => values.slice([at[i]!], [leaf.size]).reshape(leaf.shape))])
}

/** The tree with leaves by path. */
const replaced = <P>(tree: P, leaves: ReadonlyMap<string, tf.Tensor>): P => mapParams((_, path) => leaves.get(path)!)(tree)

/** Number of collective operations that reduce a tree. */
export const countBuckets = (tree: unknown): number => buckets(namedParameters(tree), ([, leaf]) => leaf.size).length

/** The sum of a bucket over all workers; consumes the bucket. The operation begins before this function returns. */
const reduceBucket = async (group: WorkerGroup, bucket: readonly Named[]): Promise<readonly Named[]> => {
  const values = tf.keep(flat(bucket.map(([, leaf]) => leaf)))
  tf.dispose(bucket.map(([, leaf]) => leaf))
  try {
    const sum = await group.allReduce(values)
    const leaves = cut(bucket, sum)
    sum.dispose()
    return leaves
  } finally {
    values.dispose()
  }
}

/** Sums over all workers of the leaves of a tree that become known one by one. */
export interface TreeReduction<P> {
  /** Takes a leaf, and owns it. The first bucket whose leaves are all there is reduced. */
  readonly add: (path: string, leaf: tf.Tensor) => void
  /** The tree of sums, after every leaf was added. */
  readonly sums: () => Promise<P>
  /** Waits for the operations that have begun, and disposes the sums. */
  readonly cancel: () => Promise<void>
}

/**
 * A reduction of leaves with the paths and shapes of `tree`, in buckets of at most `limit` numbers, 25 MB by default. The buckets begin in one order on all workers, from the last to the
 * first as a backward pass completes their leaves, each as soon as its leaves and the bucket before are there.
 */
export const treeReduction = <P>(group: WorkerGroup, tree: P, limit = bucketSize): TreeReduction<P> => {
  const waiting = buckets(namedParameters(tree), ([, leaf]) => leaf.size, limit).map((bucket) => bucket.map(([path]) => path))
  const leaves = new Map<string, tf.Tensor>()
  const begun: Promise<readonly Named[]>[] = []
  const isComplete = (paths: readonly string[] | undefined): paths is readonly string[] =>
    paths?.every((path) => leaves.has(path)) === true
  const add = (path: string, leaf: tf.Tensor): void => {
    leaves.set(path, leaf)
    for (let last = waiting.at(-1); isComplete(last); last = waiting.at(-1)) {
      waiting.pop()
      const reducing = reduceBucket(
        group,
        last.map((name) => [name, leaves.get(name)!])
      )
      reducing.catch(() => {}) // handled by `sums`, which may be called later
      begun.push(reducing)
    }
  }
  const sums = async (): Promise<P> => replaced(tree, new Map(values(await Promise.allSettled(begun)).flat()))
  const cancel = async (): Promise<void> => {
    tf.dispose([...leaves.values()])
    for (const result of await Promise.allSettled(begun))
      if (result.status === 'fulfilled') tf.dispose(result.value.map(([, leaf]) => leaf))
  }
  return { add, sums, cancel }
}

/**
 * The sum of each leaf over all workers. Consumes the tree. Buckets of 25 MB are reduced at the same time, so that the network works
 * while the next bucket is put together.
 */
export const allReduceTree = <P>(group: WorkerGroup, tree: P): Promise<P> => {
  const reduction = treeReduction(group, tree)
  for (const [path, leaf] of namedParameters(tree)) reduction.add(path, leaf)
  return reduction.sums()
}

/** The results, or the first error after the results of the others are disposed. */
const values = (settled: readonly PromiseSettledResult<readonly Named[]>[]): readonly (readonly Named[])[] => {
  const done = settled.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
  const failed = settled.find((result) => result.status === 'rejected')
  if (!failed) return done
  tf.dispose(done.flat().map(([, leaf]) => leaf))
  throw failed.reason
}

/** Length of the slice of a tensor of `n` numbers that each worker holds. */
const sliceLength = (n: number, { size }: Pick<WorkerGroup, 'size'>): number => Math.ceil(n / size)

/** This worker's slice `[⌈n / size⌉]` of each leaf of `n` numbers, the last slices padded with zeros. The tree stays with the caller. */
export const ownSlices = <P>(group: Pick<WorkerGroup, 'rank' | 'size'>, tree: P): P =>
  mapParams((leaf) => {
    const length = sliceLength(leaf.size, group)
    const start = Math.min(group.rank * length, leaf.size)
    const present = Math.min(length, leaf.size - start)
    return tf.tidy(() =>
      leaf
        .flatten()
        .slice([start], [present])
        .pad([[0, length - present]])
    )
  })(tree)

/** The whole leaves of trees of slices; `shapes` has the shape of each leaf by path. Consumes the slices. */
export const gatherSlices = async <P>(
  group: WorkerGroup,
  slices: P,
  shapes: ReadonlyMap<string, readonly number[]>
): Promise<P> => {
  const gather = async (bucket: readonly Named[]): Promise<readonly Named[]> => {
    const part = flat(bucket.map(([, leaf]) => leaf))
    try {
      const all = await group.allGather(part)
      const whole = tf.tidy(() => {
        const rows = all.reshape([group.size, part.size])
        let at = 0
        return bucket.map(([path, slice]) => {
          const shape = shapes.get(path)!
          const leaf = rows
            .slice([0, at], [group.size, slice.size])
            .flatten()
            .slice([0], [tf.util.sizeFromShape([...shape])])
          at += slice.size
          return leaf.reshape([...shape])
        })
      })
      all.dispose()
      return bucket.map(([path], i) => [path, whole[i]!])
    } finally {
      tf.dispose([part, ...bucket.map(([, leaf]) => leaf)])
    }
  }
  const gathered = await Promise.allSettled(buckets(namedParameters(slices), ([, leaf]) => leaf.size * group.size).map(gather))
  return replaced(slices, new Map(values(gathered).flat()))
}
