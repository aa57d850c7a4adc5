import assert from 'node:assert/strict'
import { EngineFailedError } from '../../../generation/engine/engine-errors.js'
import type { EngineInfo } from '../../../generation/engine/engine-types.js'
import type { ProcessListeners } from '../../../generation/engine/model-process.js'
import { supervise } from '../../../generation/engine/supervisor.js'
import { InternVLError } from '../../../lib/error.js'

/** A supervisor of processes that the test ends itself. */
const testSupervisor = (maxRestarts: number) => {
  const started: ProcessListeners[] = []
  const log: string[] = []
  let onStart = (): void => undefined
  const supervisor = supervise({
    load: { type: 'load', model: undefined, options: { processorModules: [] } },
    ...{ maxRestarts, restartBackoff: 0 },
    onReady: () => log.push('ready'),
    onCrash: (reason) => log.push(`crash: ${reason}`),
    onFailed: (error) => log.push(`failed: ${error.name}: ${error.message}`),
    onMessage: ({ type }) => log.push(type),
    start: (listeners) => {
      started.push(listeners)
      onStart()
      return { pid: started.length, send: ({ type }) => log.push(type), end: async () => listeners.onEnd('ended') }
    }
  })
  const nextStart = (): Promise<void> =>
    new Promise((resolve) => {
      onStart = resolve
    })
  const becomeReady = (): void => started.at(-1)!.onMessage({ type: 'ready', info: {} as EngineInfo })
  return { supervisor, started, log, nextStart, becomeReady }
}

describe('supervisor of the process', () => {
  it('starts a process that crashed again, and fails after maxRestarts failures without success', async () => {
    const { supervisor, started, log, nextStart, becomeReady } = testSupervisor(2)
    becomeReady()
    for (const [i, reason] of ['one', 'two'].entries()) {
      const next = nextStart()
      started.at(-1)!.onEnd(reason)
      assert.equal(supervisor.state(), 'starting')
      await next
      if (i === 0) becomeReady()
    }
    started.at(-1)!.onMessage({ type: 'load-failed', error: { name: 'InternVLError', message: 'no file', issues: [] } })
    assert.equal(supervisor.state(), 'failed')
    assert.deepEqual(
      log.filter((line) => line !== 'load'),
      [
        'ready',
        'crash: one',
        'ready',
        'crash: two',
        'crash: the model could not be loaded again: no file',
        `failed: EngineFailedError: ${new EngineFailedError(3, 'the model could not be loaded again: no file').message}`
      ]
    )
    assert.equal(started.length, 3)
  })

  it('a success in between forgets earlier failures', async () => {
    const { supervisor, started, nextStart, becomeReady } = testSupervisor(1)
    for (let i = 0; i < 4; i++) {
      becomeReady()
      supervisor.onSuccess()
      const next = nextStart()
      started.at(-1)!.onEnd('crash')
      await next
    }
    assert.deepEqual([supervisor.state(), supervisor.restarts(), supervisor.pid()], ['starting', 4, 5])
    await supervisor.end()
    assert.equal(supervisor.state(), 'ended')
  })

  it('a first load that fails is not tried again', () => {
    const missing = testSupervisor(5)
    const issues = [{ _tag: 'NotFound', message: 'no such folder' }]
    missing.started[0]!.onMessage({ type: 'load-failed', error: { name: 'InternVLError', message: 'no such folder', issues } })
    assert.deepEqual(missing.log, ['load', `failed: ${InternVLError.name}: no such folder`])
    const killed = testSupervisor(5)
    killed.started[0]!.onEnd('signal SIGKILL')
    assert.match(killed.log[1]!, /^failed: EngineFailedError: .*SIGKILL/)
  })

  it('messages of a process that ended are ignored', async () => {
    const { started, log, nextStart, becomeReady } = testSupervisor(5)
    becomeReady()
    const next = nextStart()
    started[0]!.onEnd('crash')
    await next
    started[0]!.onMessage({ type: 'warning', text: 'late' })
    assert.ok(!log.includes('warning'))
  })
})
