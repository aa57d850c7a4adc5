import assert from 'node:assert/strict'
import { tf } from '../../lib/tf.js'

type Make<T, R> = () => AsyncGenerator<T, R, void>

const advance = async <T, R>(generator: AsyncGenerator<T, R, void>, steps: number): Promise<void> => {
  for (let step = 0; step < steps; step++) await generator.next()
}

/**
 * Checks that a generator keeps no tensor: run to its end, and left after every number of steps, by `return` as `break` does, and by
 * `throw`. `disposeResult` disposes what a caller owns at the end.
 */
export const leavesNoTensor = async <T, R>(
  make: Make<T, R>,
  disposeResult: (result: R) => void = () => undefined
): Promise<void> => {
  const before = tf.memory().numTensors
  const whole = make()
  let steps = 0
  for (let next = await whole.next(); ; next = await whole.next(), steps++)
    if (next.done) {
      disposeResult(next.value)
      break
    }
  assert.equal(tf.memory().numTensors, before, 'run to the end')
  for (let step = 0; step <= steps; step++) {
    const returned = make()
    await advance(returned, step)
    await returned.return(undefined as never)
    assert.equal(tf.memory().numTensors, before, `return after ${step} of ${steps} steps`)
    const failed = make()
    await advance(failed, step)
    await assert.rejects(failed.throw(new Error('left')), /left/)
    assert.equal(tf.memory().numTensors, before, `throw after ${step} of ${steps} steps`)
  }
}
