import assert from 'node:assert/strict'
import fc from 'fast-check'
import { initialState, type TrainState, takeStep, train } from '../../../generation/train/training-loop.js'
import { InternVLError } from '../../../lib/error.js'
import { combine, partition } from '../../../lib/params.js'
import { tf } from '../../../lib/tf.js'
import { type Line, line, type Points, points, pointsAt, settings, square } from './regression.js'

const numbers = ({ weight, bias }: Line) => [...weight.dataSync(), ...bias.dataSync()]
const free = ({ params, optimizer: { first, second } }: TrainState<unknown>) =>
  tf.dispose([params, first, second] as tf.TensorContainer)

describe('train', () => {
  it('reduces the loss, counts steps and batches, and carries the loss state', async () => {
    const losses: number[] = []
    let last = initialState(line(), settings.optimizer)
    for await (const report of train(last, points, { ...settings, steps: 60, gradientAccumulation: 2, tokensOf: () => 4 })) {
      losses.push(report.loss)
      last = report.state
      assert.deepEqual([report.step, report.tokens], [losses.length, 8])
    }
    assert.ok(losses.at(-1)! < 0.05 * losses[0]!, `${losses[0]} to ${losses.at(-1)}`)
    assert.deepEqual([last.step, last.position, last.lossState], [60, 120, { batches: 120 }])
    free(last)
  })

  it('continues from any state with the losses of an uninterrupted run, bit by bit', () =>
    fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 3 }), async (stop, gradientAccumulation) => {
        const [whole, parts]: [number[], number[]] = [[], []]
        const until = async (state: TrainState<Line>, steps: number, into: number[]) => {
          let last = state
          for await (const report of train(last, points, { ...settings, steps, gradientAccumulation })) {
            into.push(report.loss)
            last = report.state
          }
          return last
        }
        free(await until(initialState(line(), settings.optimizer), 10, whole))
        free(await until(await until(initialState(line(), settings.optimizer), stop, parts), 10, parts))
        assert.deepEqual(parts, whole)
      }),
      { numRuns: 4 }
    ))

  it('ends with the data; the last step may have fewer batches', async () => {
    const three = function* (position: number): Generator<Points> {
      for (let i = position; i < 3; i++) yield pointsAt(i)
    }
    let last = initialState(line(), settings.optimizer)
    for await (const report of train(last, three, { ...settings, gradientAccumulation: 2 })) last = report.state
    assert.deepEqual([last.step, last.position], [2, 3])
    free(last)
  })

  it('leaves frozen parameters unchanged, bit by bit', async () => {
    const params = line()
    const before = numbers(params)
    const [trained, frozen] = partition((path) => path === 'bias')(params)
    const loss: typeof square = (p, batch, lossState) => square(combine(p, frozen as never), batch, lossState)
    let last = initialState(trained as Line, settings.optimizer)
    for await (const report of train(last, points, { ...settings, loss, steps: 5 })) last = report.state
    const after = numbers(combine(last.params as never, frozen as never))
    assert.deepEqual(after.slice(0, 3), before.slice(0, 3))
    assert.notEqual(after[3], before[3])
    free(last)
    tf.dispose(frozen as tf.TensorContainer)
  })

  it('keeps no tensor from step to step', async () => {
    const before = tf.memory().numTensors
    const counts = new Set<number>()
    let last = initialState(line(), settings.optimizer)
    for await (const report of train(last, points, { ...settings, steps: 20, gradientAccumulation: 2, maxGradNorm: 1 })) {
      counts.add(tf.memory().numTensors - before)
      last = report.state
    }
    free(last)
    assert.deepEqual([counts.size, tf.memory().numTensors], [1, before])
  })

  it('throws at a loss that is not finite, and leaves the state unchanged', () => {
    const state = initialState(line(), settings.optimizer)
    const batch = { x: tf.fill([4, 3], Number.NaN) as tf.Tensor2D, y: tf.zeros<tf.Rank.R2>([4, 1]) }
    assert.throws(
      () => takeStep(state, [batch], settings),
      (error: InternVLError) => error instanceof InternVLError && /step 1: the loss is NaN/.test(error.message)
    )
    assert.deepEqual(numbers(state.params), [0, 0, 0, 0])
    tf.dispose(batch as unknown as tf.TensorContainer)
    free(state)
  })
})
