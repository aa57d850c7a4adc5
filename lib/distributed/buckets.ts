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

/**
 * The sum of each leaf over all workers. Consumes the tree. Buckets of 25 MB are reduced at the same time, so that the network works
 * while the next bucket is put together.
 */
export const allReduceTree = async <P>(group: WorkerGroup, tree: P): Promise<P> => {
  const reduce = async (bucket: readonly Named[]): Promise<readonly Named[]> => {
    const values = flat(bucket.map(([, leaf]) => leaf))
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
  const reduced = await Promise.allSettled(buckets(namedParameters(tree), ([, leaf]) => leaf.size).map(reduce))
  return replaced(tree, new Map(values(reduced).flat()))
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
