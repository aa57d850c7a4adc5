import type { WorkerGroup } from '../../../lib/distributed/worker-group.js'
import { tf } from '../../../lib/tf.js'

/** Collects a value of each worker and gives all of them to every worker. */
const exchange = <A>(size: number) => {
  const rounds: { readonly values: A[]; readonly waiting: ((all: readonly A[]) => void)[]; count: number }[] = []
  const calls = new Array<number>(size).fill(0)
  return (rank: number, value: A): Promise<readonly A[]> => {
    const index = calls[rank]!++
    rounds[index] ??= { values: new Array(size), waiting: [], count: 0 }
    const round = rounds[index]
    round.values[rank] = value
    const all = new Promise<readonly A[]>((done) => round.waiting.push(done))
    if (++round.count === size) for (const done of round.waiting) done(round.values)
    return all
  }
}

/** Workers of one process, for laws that need no network: the same operations by way of memory. */
export const inMemoryGroup = (size: number): readonly WorkerGroup[] => {
  const tensors = exchange<Float32Array | Int32Array>(size)
  const json = exchange<unknown>(size)
  const typed = (x: tf.Tensor) => x.dataSync<'float32' | 'int32'>()
  return Array.from({ length: size }, (_, rank): WorkerGroup => {
    const gather = async <A>(value: A) => (await json(rank, value)) as readonly A[]
    let bytes = 0
    return {
      rank,
      size,
      addresses: Array.from({ length: size }, (_, i) => `worker-${i}:4000`),
      allReduce: async (x) => {
        bytes += (8 * x.size * (size - 1)) / size
        const all = await tensors(rank, typed(x))
        const sum = all[0]!.map((_, i) => all.reduce((total, values) => total + values[i]!, 0))
        return tf.tensor(sum, x.shape, x.dtype)
      },
      allGather: async (x) => {
        bytes += 4 * x.size * (size - 1)
        const all = await tensors(rank, typed(x))
        const [n = 1, ...rest] = x.shape
        return tf.tensor(
          [...all].flatMap((values) => [...values]),
          [n * size, ...rest],
          x.dtype
        )
      },
      gather,
      broadcast: async (value) => (await gather(value))[0]!,
      barrier: async () => void (await gather(0)),
      traffic: () => ({ bytes, seconds: 0 }),
      whileComputing: (compute) => compute(),
      reportError: () => {}
    }
  })
}
