import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { type ScheduleName, schedules } from '../../../lib/optim/schedule.js'

interface Case {
  readonly name: ScheduleName
  readonly warmupSteps: number
  readonly totalSteps: number
  readonly rates: readonly number[]
}

const cases: readonly Case[] = JSON.parse(readFileSync(new URL('../../reference/schedules.json', import.meta.url), 'utf8'))

describe('schedule', () => {
  for (const { name, warmupSteps, totalSteps, rates } of cases)
    it(`${name}, ${warmupSteps} of ${totalSteps} steps of warm-up: the learning rates equal Transformers'`, () => {
      const schedule = schedules[name]({ learningRate: 2e-3, warmupSteps, totalSteps })
      for (const [step, rate] of rates.entries())
        assert.ok(Math.abs(schedule(step) - rate) < 1e-15, `step ${step}: ${schedule(step)}, expected ${rate}`)
    })

  it('takes `rate`, the name of `learningRate` before 0.2', () =>
    assert.equal(schedules.linear({ rate: 2, totalSteps: 4 })(1), schedules.linear({ learningRate: 2, totalSteps: 4 })(1)))

  it('rejects negative learning rates and warm-ups', () => {
    assert.throws(() => schedules.cosine({ learningRate: -1, totalSteps: 3 }), /the learning rate must be 0 or more, got -1/)
    assert.throws(
      () => schedules.linear({ learningRate: 1, warmupSteps: Number.NaN, totalSteps: 3 }),
      /warmupSteps must be 0 or more, got NaN/
    )
  })
})
