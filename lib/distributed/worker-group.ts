import { createHash } from 'node:crypto'
import { attr, type NativeBackend } from '../engines/native.js'
import { errorText, InternVLError, issue } from '../error.js'
import { namedParameters } from '../params.js'
import { tf } from '../tf.js'
import { rankInMessage } from './server-def.js'
import { watchPeers } from './watch-peers.js'

/** Bytes that this worker sent (it received as many), and the seconds in which it waited for others. */
export interface Traffic {
  readonly bytes: number
  readonly seconds: number
}

/**
 * The workers of a run, as seen by one of them. Every method is collective: all workers call the same methods in the same order, with
 * tensors of the same shapes. A method rejects with an `InternVLError` that names a worker which is gone.
 */
export interface WorkerGroup {
  /** Index of this worker. */
  readonly rank: number
  readonly size: number
  /** `host:port` by rank. */
  readonly addresses: readonly string[]
  /** The sum of a tensor over all workers, equal on all of them bit by bit. The input stays with the caller. */
  readonly allReduce: (x: tf.Tensor) => Promise<tf.Tensor>
  /** Tensors `[n, …]` of all workers one after the other, `[size · n, …]`. The input stays with the caller. */
  readonly allGather: (x: tf.Tensor) => Promise<tf.Tensor>
  /** A JSON value of each worker, by rank. */
  readonly gather: <A>(value: A) => Promise<readonly A[]>
  /** The JSON value of worker 0. */
  readonly broadcast: <A>(value: A) => Promise<A>
  /** Resolves when all workers have called it. */
  readonly barrier: () => Promise<void>
  /** Traffic since the start. */
  readonly traffic: () => Traffic
  /**
   * Runs a long synchronous computation between two operations. Where another worker is gone meanwhile, this process ends within 15 s, after a
   * line on standard error. Not collective.
   */
  readonly whileComputing: <A>(compute: () => A) => A
  /** Tells the other workers why this one ends: their next operation fails with the reason. Not collective. */
  readonly reportError: (reason: string) => void
}

const groupKey = 1

/** `worker 1 (10.0.0.2:4000)`. */
export const workerName = (addresses: readonly string[], rank: number): string => `worker ${rank} (${addresses[rank]})`

/** Begins the reasons that workers report to each other: the mark, the rank of the worker that stopped, and why. */
const reasonMark = 'internvl worker'
const gone = 'no longer answers'
const reasonText = (rank: number, reason: string): string => `${reasonMark} ${rank}: ${reason.replaceAll('\n', '; ')}`

/**
 * The error of a collective operation as one sentence that names the worker: a reason that a worker has reported, or the task in
 * TensorFlow's message.
 */
export const workerError = (addresses: readonly string[], rank: number, error: unknown): InternVLError => {
  const text = errorText(error)
  const [, stopped, reason] = new RegExp(`${reasonMark} (\\d+): ([^\\n]*?)(?: \\[type\\.googleapis|\\n|$)`).exec(text) ?? []
  if (stopped !== undefined && reason !== gone)
    return new InternVLError([
      issue('WorkerFailed', `${workerName(addresses, Number(stopped))} stopped: ${reason}`, { rank: Number(stopped) })
    ])
  const named = stopped === undefined ? rankInMessage(text) : Number(stopped)
  const lost = named === undefined || named === rank ? undefined : named
  const name = lost === undefined ? 'another worker' : workerName(addresses, lost)
  return new InternVLError([issue('WorkerGone', `${name} ${gone}`, { rank: lost, detail: text })])
}

/** The group of a native engine whose context has a cluster. */
export const workerGroup = (native: NativeBackend, addresses: readonly string[], rank: number): WorkerGroup => {
  const size = addresses.length
  let [instances, bytes, seconds] = [0, 0, 0]

  /** Runs a collective operation on a thread, because it waits for the other workers. */
  const collective = async (op: string, x: tf.Tensor, further: Parameters<NativeBackend['runAsync']>[1], volume: number) => {
    const start = performance.now()
    const numbers = [size, groupKey, ++instances].map((n) => tf.scalar(n, 'int32'))
    const attributes = [
      attr.type('T', x.dtype as 'float32' | 'int32'),
      ...further,
      attr.string('communication_hint', 'ring'),
      attr.float('timeout_seconds', 0),
      attr.int('Nordering_token', 0)
    ]
    try {
      const [output] = await native.runAsync(op, attributes, native.handles([x, ...numbers]))
      return native.tensor(output!)
    } catch (error) {
      const failure = workerError(addresses, rank, error)
      const { _tag, rank: lost } = failure.issues[0]
      // the others would wait for a heartbeat, and could name this worker, which ends now
      if (_tag === 'WorkerGone' && typeof lost === 'number') native.reportError(reasonText(lost, gone))
      throw failure
    } finally {
      tf.dispose(numbers)
      bytes += volume
      seconds += (performance.now() - start) / 1000
    }
  }

  // A ring sends and receives each of `size` parts: (size − 1) times to sum, and as often again to return the sums.
  const hops = size - 1
  const allReduce = (x: tf.Tensor): Promise<tf.Tensor> =>
    collective(
      'CollectiveReduceV2',
      x,
      [
        attr.string('merge_op', 'Add'),
        attr.string('final_op', 'Id'),
        attr.bool('is_stateless', false),
        attr.int('max_subdivs_per_device', -1)
      ],
      (2 * 4 * x.size * hops) / size
    )
  const allGather = (x: tf.Tensor): Promise<tf.Tensor> =>
    collective('CollectiveGatherV2', x, [attr.bool('is_stateless', false)], 4 * x.size * hops)

  const sumOf = async (values: Int32Array): Promise<Int32Array> => {
    const x = tf.tensor1d(values, 'int32')
    const sum = await allReduce(x)
    const result = sum.dataSync<'int32'>()
    tf.dispose([x, sum])
    return result as Int32Array
  }
  const gather = async <A>(value: A): Promise<readonly A[]> => {
    const text = Buffer.from(JSON.stringify(value))
    const lengths = new Int32Array(size)
    lengths[rank] = text.length
    const counts = [...(await sumOf(lengths))]
    const width = Math.max(...counts)
    const bytesHere = new Int32Array(width)
    bytesHere.set(text)
    const x = tf.tensor1d(bytesHere, 'int32')
    const all = await allGather(x)
    const rows = all.dataSync<'int32'>()
    tf.dispose([x, all])
    return counts.map((count, i) => JSON.parse(Buffer.from(rows.subarray(i * width, i * width + count)).toString()) as A)
  }

  return {
    rank,
    size,
    addresses,
    allReduce,
    allGather,
    gather,
    broadcast: async (value) => (await gather(rank === 0 ? value : (null as typeof value)))[0]!,
    barrier: async () => void (await sumOf(new Int32Array(1))),
    traffic: () => ({ bytes, seconds }),
    whileComputing: watchPeers(addresses, rank),
    reportError: (reason) => native.reportError(reasonText(rank, reason))
  }
}

/** SHA-256 of the values of a parameter tree. */
export const parameterHash = (params: unknown): string => {
  const hash = createHash('sha256')
  for (const [path, leaf] of namedParameters(params)) {
    const { buffer, byteOffset, byteLength } = leaf.dataSync()
    hash.update(path).update(new Uint8Array(buffer, byteOffset, byteLength))
  }
  return hash.digest('hex')
}
