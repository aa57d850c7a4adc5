// Run by watched-child.ts in a process of its own: runs one input a message, and answers with the verdict.
import { selectEngine } from '../../lib/engines/index.js'
import { tf } from '../../lib/tf.js'
import { makeFixture } from './fixture.js'
import { kindNamed } from './kinds/index.js'
import { type Verdict, verdictOf } from './verdict.js'

/** One input for the child process. */
export interface Request {
  readonly kind: string
  readonly input: unknown
}

const send = (message: unknown): void => void process.send?.(message)

let late: Verdict | undefined
const onLateError = (error: unknown): void => {
  late ??= { ...verdictOf(error), outcome: 'error' }
}
process.on('uncaughtException', onLateError)
process.on('unhandledRejection', onLateError)

await selectEngine()
const fixture = await makeFixture()

/** The verdict on a call, and on what the call leaves behind. */
const judge = async ({ kind, input }: Request): Promise<Verdict> => {
  const before = tf.memory().numTensors
  late = undefined
  let verdict: Verdict
  try {
    verdict = { outcome: (await kindNamed(kind).run(input, fixture)) ? 'accepted' : 'refused', detail: '' }
  } catch (error) {
    verdict = verdictOf(error)
  }
  await new Promise((resolve) => setImmediate(resolve)) // rejections without a handler are reported before
  fixture.internvl.features.clear()
  const left = tf.memory().numTensors - before
  if (late) return late
  if (left === 0 || (verdict.outcome !== 'accepted' && verdict.outcome !== 'refused')) return verdict
  return {
    outcome: 'leak',
    detail: `${left} tensors more than before, after the input was ${verdict.outcome}; ${verdict.detail}`
  }
}

process.on('message', (request: Request) => void judge(request).then(send))
process.on('disconnect', () => {
  fixture.dispose()
  process.exit()
})
send('ready')
