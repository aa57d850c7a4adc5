import { type ProtobufValue, protobufMessage } from '../protobuf.js'

/** Seconds between two heartbeats of a worker to the coordination service, after which a silent worker counts as gone. */
const heartbeatSeconds = 5

export interface ServerDefOptions {
  /** `host:port` of every worker, in the order of their ranks. */
  readonly addresses: readonly string[]
  /** Index of this worker. */
  readonly rank: number
  /** Time to wait for the other workers at the start. */
  readonly timeoutSeconds: number
}

/** TensorFlow's name of a worker. */
export const taskName = (rank: number): string => `/job:worker/replica:0/task:${rank}`

/** Rank of the worker that a message of TensorFlow names last, because the message begins with the worker that reports it. */
export const rankInMessage = (message: string): number | undefined => {
  const found = [...message.matchAll(/\/job:worker\/(?:replica:0\/)?task:(\d+)/g)].at(-1)
  return found && Number(found[1])
}

/**
 * Bytes of the `ServerDef` of one worker: the job `worker` with a task for each address, rank 0 as the leader of collective groups and
 * of the coordination service, which tells every worker when one stops answering.
 * Source: tensorflow/core/protobuf/{tensorflow_server,cluster,config}.proto and tsl/protobuf/coordination_config.proto of TensorFlow 2.18.
 */
export const serverDef = ({ addresses, rank, timeoutSeconds }: ServerDefOptions): Uint8Array => {
  const tasks = addresses.map(
    (address, i): ProtobufValue => [
      2,
      [
        [1, i],
        [2, address]
      ]
    ]
  )
  const coordination: readonly ProtobufValue[] = [
    [1, 'standalone'], // service_type
    [2, taskName(0)], // service_leader
    [3, 1], // enable_health_check
    [4, timeoutSeconds * 1000], // cluster_register_timeout_in_ms
    [5, heartbeatSeconds * 1000], // heartbeat_timeout_in_ms
    [7, timeoutSeconds * 1000], // shutdown_barrier_timeout_in_ms
    [
      10,
      [
        [1, 'worker'],
        [2, addresses.length]
      ]
    ] // coordinated_job_list
  ]
  const experimental: readonly ProtobufValue[] = [
    [1, taskName(0)], // collective_group_leader
    [23, coordination]
  ]
  return protobufMessage([
    [1, [[1, [[1, 'worker'], ...tasks]]]], // cluster: job: name, tasks
    [2, 'worker'], // job_name
    [3, rank], // task_index
    [4, [[16, experimental]]], // default_session_config
    [5, 'grpc'] // protocol
  ])
}
