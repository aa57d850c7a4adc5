import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { applyRope, dynamicRopeLength, ropeFrequencies, ropeTables } from '../../../lib/nn/rope.js'
import type { tf } from '../../../lib/tf.js'
import { count, randomTensor, seed } from '../../arbitraries/tensor.js'
import { check } from '../../laws/check.js'
import { assertClose } from '../../laws/close.js'

const cases = JSON.parse(readFileSync(new URL('../../reference/rope.json', import.meta.url), 'utf8'))
const frequencies = (headDim: number, partialRotaryFactor = 1) =>
  ropeFrequencies({ ropeType: 'default', ropeTheta: 100, partialRotaryFactor }, headDim, 64, 64)

describe('rope', () => {
  for (const type of ['default', 'linear', 'dynamic', 'yarn', 'llama3', 'longrope'])
    it(`${type}: frequencies are Transformers', to the last bits of float32`, () => {
      for (const { rope, headDim, maxPositions, length, inverse, scaling } of cases) {
        if (rope.ropeType !== type) continue
        const ours = ropeFrequencies(rope, headDim, maxPositions, length)
        assert.equal(ours.inverse.length, inverse.length)
        for (const [i, f] of ours.inverse.entries())
          assert.ok(Math.abs(f / inverse[i] - 1) < 5e-7, `${JSON.stringify(rope)}: ${f}, ${inverse[i]}`)
        assert.ok(Math.abs(ours.scaling - scaling) < 1e-12)
      }
    })

  const samples = fc.record({ half: count(4), L: count(5), shift: fc.nat(9), seed })

  it('keeps norms, and the entries that are not rotated', () =>
    check(samples, ({ half, L, seed }) => {
      const x = randomTensor<tf.Tensor4D>([1, 2, L, 4 * half], seed)
      const rotated = applyRope(x, ropeTables(frequencies(4 * half, 0.5), [Array.from({ length: L }, (_, i) => i * 3)]))
      assertClose(rotated.square().sum(3), x.square().sum(3))
      assertClose(rotated.slice([0, 0, 0, 2 * half], [1, 2, L, 2 * half]), x.slice([0, 0, 0, 2 * half], [1, 2, L, 2 * half]), 0)
    }))

  it('scores depend on distances only: shifting all positions changes nothing', () =>
    check(samples, ({ half, L, shift, seed }) => {
      const [q, k] = [seed, seed + 1].map((s) => randomTensor<tf.Tensor4D>([1, 1, L, 2 * half], s)) as [tf.Tensor4D, tf.Tensor4D]
      const scores = (from: number) => {
        const tables = ropeTables(frequencies(2 * half), [Array.from({ length: L }, (_, i) => from + i)])
        return applyRope(q, tables).matMul(applyRope(k, tables), false, true)
      }
      assertClose(scores(shift), scores(0))
    }))

  it('dynamic scaling remembers the longest sequence until one is shorter than the trained length', () => {
    const lengths = [30, 64, 65, 75, 64, 70, 59, 60, 64]
    let before = 64
    const remembered = lengths.map((n) => {
      before = dynamicRopeLength(before, n, 64)
      return before
    })
    assert.deepEqual(remembered, [64, 64, 65, 75, 75, 75, 64, 64, 64]) // values of consecutive forwards of a Transformers module
  })
})
