// A worker process with an engine of fixed delay: node --import tsx worker-child.ts URL DELAY [DEADLY-QUESTION]
import { connectQueue } from '../../../generation/jobs/queue/queue-connection.js'
import { workOnRuns } from '../../../generation/jobs/queue/work-on-runs.js'
import { fixedEngine } from './fixed-engine.js'

const [url, delay, deadly] = process.argv.slice(2)
const connection = await connectQueue(url!)
const onQuestion = (question: string): void => {
  if (question === deadly) process.kill(process.pid, 'SIGKILL')
}
const stop = new AbortController()
process.on('SIGTERM', () => stop.abort())
await workOnRuns(connection, {
  batch: 4,
  stallSeconds: 1,
  untilDone: true,
  stop: stop.signal,
  onEvent: (line) => void process.stdout.write(`${line}\n`),
  startEngine: async () => fixedEngine({ delay: Number(delay), onQuestion, isRefused: (question) => question === 'refused' })
})
await connection.close()
