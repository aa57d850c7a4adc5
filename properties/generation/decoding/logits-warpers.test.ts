import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import type { LogitsProcessor } from '../../../generation/decoding/generation-options.js'
import {
  epsilonFilter,
  etaFilter,
  minPFilter,
  softmax,
  temperatureScale,
  topHFilter,
  topIndices,
  topKFilter,
  topPFilter,
  typicalFilter
} from '../../../generation/decoding/logits-warpers.js'
import { logits } from '../../arbitraries/logits.js'

const warpers: Readonly<Record<string, (value: number, keep?: number) => LogitsProcessor>> = {
  temperature: temperatureScale,
  topK: topKFilter,
  topP: topPFilter,
  minP: minPFilter,
  typicalP: typicalFilter,
  epsilonCutoff: epsilonFilter,
  etaCutoff: etaFilter,
  topH: topHFilter
}

interface Case {
  readonly name: string
  readonly value: number
  readonly keep: number
  readonly logits: (number | null)[]
  readonly kept: number[]
  readonly out: number[]
}
const cases: Case[] = JSON.parse(readFileSync(new URL('../../reference/warpers.json', import.meta.url), 'utf8'))

const possible = (values: Float32Array) => [...values.keys()].filter((i) => values[i]! > Number.NEGATIVE_INFINITY)

describe('warpers', () => {
  it('a temperature near 0 is greedy', () =>
    fc.assert(
      fc.property(logits, fc.constantFrom(1e-300, 1e-39, 1e-30), (given, temperature) => {
        const result = temperatureScale(temperature)([], given, 0)
        const largest = Math.max(...given)
        if (largest === Number.NEGATIVE_INFINITY) return
        assert.ok(!result.some((x) => Number.isNaN(x) || x === Number.POSITIVE_INFINITY))
        assert.ok(result.every((x, i) => (x === Math.max(...result)) === (given[i] === largest)))
      })
    ))

  for (const name of Object.keys(warpers)) {
    it(`${name} keeps what Transformers keeps`, () => {
      for (const { value, keep, logits, kept, out } of cases.filter((c) => c.name === name)) {
        const given = Float32Array.from(logits, (x) => x ?? Number.NEGATIVE_INFINITY)
        const result = warpers[name]!(value, keep)([], given, 0)
        assert.deepEqual(possible(result), kept, `${name} ${value}, at least ${keep}`)
        for (const [n, i] of kept.entries()) assert.ok(Math.abs(result[i]! - out[n]!) < 1e-4)
      }
    })

    it(`${name} does not change its arguments, and always keeps the most probable token`, () =>
      fc.assert(
        fc.property(logits, fc.double({ min: 0.01, max: 1, noNaN: true }), (given, value) => {
          const copy = given.slice()
          const result = warpers[name]!(name === 'topK' ? Math.ceil(value * 5) : value)([], given, 0)
          assert.deepEqual(given, copy)
          const best = topIndices(given, 1)[0]!
          // typical sampling may drop it by design; top-p keeps the later of equal ones
          if (name !== 'typicalP') assert.ok(possible(result).some((i) => given[i] === given[best]))
          assert.ok(possible(result).length > 0 && possible(result).every((i) => possible(given).includes(i)))
        })
      ))
  }

  it('topIndices is in descending order with ties by index, for any k', () =>
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 1, maxLength: 400 }),
        fc.integer({ min: 1, max: 400 }),
        (values, k) => {
          const sorted = [...values.keys()].sort((a, b) => values[b]! - values[a]! || a - b).slice(0, k)
          assert.deepEqual(topIndices(values, k), sorted)
        }
      )
    ))

  it('softmax sums to one, also for logits that are far apart', () =>
    fc.assert(fc.property(logits, (l) => assert.ok(Math.abs(softmax(l.map((x) => x * 100)).reduce((a, b) => a + b) - 1) < 1e-9))))
})
