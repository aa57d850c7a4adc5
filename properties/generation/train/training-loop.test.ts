import assert from 'node:assert/strict'
import fc from 'fast-check'
import { initialState, type TrainOptions, type TrainState, takeStep, train } from '../../../generation/train/training-loop.js'
import { InternVLError } from '../../../lib/error.js'
import { combine, partition } from '../../../lib/params.js'
import { tf } from '../../../lib/tf.js'
import { leavesNoTensor } from '../../laws/generator.js'
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

  it('leaves no tensor, left after any step by break, return, an error of the consumer or throw', async () => {
    for (const gradientAccumulation of [1, 3]) {
      const options = { ...settings, steps: 4, gradientAccumulation, maxGradNorm: 1 }
      await leavesNoTensor(async function* () {
        let last = initialState(line(), settings.optimizer)
        try {
          for await (const report of train(last, points, options)) {
            last = report.state
            yield report.loss
          }
        } finally {
          free(last)
        }
      })
      const before = tf.memory().numTensors
      for (let steps = 0; steps <= 4; steps++) {
        let last = initialState(line(), settings.optimizer)
        const run = train(last, points, options)
        for (let step = 0; step < steps; step++) last = (await run.next()).value!.state
        await assert.rejects(run.throw(new Error('left')), /left/)
        free(last)
        assert.equal(tf.memory().numTensors, before, `throw after ${steps} steps`)
      }
    }
  })

  it('leaves no tensor where the data, the loss, the weight or the number of tokens of any batch throws', async () => {
    const fail = (at: number) => {
      let calls = 0
      return () => {
        if (++calls === at) throw new Error('failed')
        return 1
      }
    }
    const failing = (at: number): readonly Partial<TrainOptions<Line, Points>>[] => {
      const failsAt = fail(at)
      const loss: typeof square = (...given) => {
        const result = square(...given)
        failsAt()
        return result
      }
      return [{ loss }, { weightOf: fail(at) }, { tokensOf: fail(at) }, { learningRate: fail(at) }, {}]
    }
    const source = (at: number) =>
      function* (position: number): Generator<Points> {
        const failsAt = fail(at)
        for (let i = position; ; i++) {
          failsAt()
          yield pointsAt(i)
        }
      }
    for (let at = 1; at <= 6; at++)
      for (const [i, options] of failing(at).entries()) {
        const before = tf.memory().numTensors
        let last = initialState(line(), settings.optimizer)
        const batches = Object.keys(options).length === 0 ? source(at) : points
        const run = async () => {
          for await (const report of train(last, batches, { ...settings, steps: 9, gradientAccumulation: 2, ...options })) last = report.state // biome-ignore format: one line
        }
        await assert.rejects(run(), /failed/)
        free(last)
        assert.equal(tf.memory().numTensors, before, `option ${i}, call ${at}`)
      }
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
