/** One of `count` parts of a file of questions. */
export interface Shard {
  /** From 0 on, as `JOB_COMPLETION_INDEX` of Kubernetes. */
  readonly index: number
  readonly count: number
}

/** Parses `i/n`, `0/4` to `3/4`. Throws a `RangeError` that says which shards there are. */
export const parseShard = (text: string): Shard => {
  const [, i, n] = /^(\d{1,9})\/(\d{1,9})$/.exec(text.trim()) ?? []
  const [index, count] = [Number(i), Number(n)]
  if (i === undefined || count < 1)
    throw new RangeError(`shard ${JSON.stringify(text)}: expected i/n, such as 0/4 for the first of four parts`)
  if (index >= count)
    throw new RangeError(`shard ${text}: parts are counted from 0; the last of ${count} is ${count - 1}/${count}`)
  return { index, count }
}

/** The rows of a shard: `[start, end)`. Shards are consecutive, differ by at most one row, and joined in order are the file. */
export const shardRange = (rows: number, { index, count }: Shard): { readonly start: number; readonly end: number } => ({
  start: Math.floor((rows * index) / count),
  end: Math.floor((rows * (index + 1)) / count)
})
