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
    it(`${name}, ${warmupSteps} of ${totalSteps} steps warming up: the rates are Transformers'`, () => {
      const schedule = schedules[name]({ rate: 2e-3, warmupSteps, totalSteps })
      for (const [step, rate] of rates.entries())
        assert.ok(Math.abs(schedule(step) - rate) < 1e-15, `step ${step}: ${schedule(step)}, expected ${rate}`)
    })

  it('refuses rates and warm-ups below 0', () => {
    assert.throws(() => schedules.cosine({ rate: -1, totalSteps: 3 }), /the rate must be 0 or more, got -1/)
    assert.throws(
      () => schedules.linear({ rate: 1, warmupSteps: Number.NaN, totalSteps: 3 }),
      /warmupSteps must be 0 or more, got NaN/
    )
  })
})
