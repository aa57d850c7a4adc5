import assert from 'node:assert/strict'
import fc from 'fast-check'
import { type GenerateOptions, generateAll } from '../../../generation/decoding/generate.js'
import { logitsProcessors } from '../../../generation/decoding/logits-processors.js'
import { softmax } from '../../../generation/decoding/logits-warpers.js'
import { rngOf, sampleIndex } from '../../../generation/decoding/sampling.js'
import { tf } from '../../../lib/tf.js'
import type { InternVL } from '../../../models/internvl/internvl.js'
import { logits, tokens } from '../../arbitraries/logits.js'
import { disposeInputs, makeInputs, tinyModel } from '../tiny.js'

/** Pearson's statistic of counts against probabilities, and its degrees of freedom; rare values are counted as one. */
const chiSquare = (counts: ArrayLike<number>, probabilities: ArrayLike<number>) => {
  const n = Array.from(counts).reduce((a, b) => a + b)
  const all = Array.from(probabilities, (p, i) => ({ expected: p * n, count: counts[i]! }))
  const rare = all.filter(({ expected }) => expected < 5)
  const sum = (key: 'expected' | 'count') => rare.reduce((total, bin) => total + bin[key], 0)
  const bins = [
    ...all.filter(({ expected }) => expected >= 5),
    ...(sum('expected') >= 5 ? [{ expected: sum('expected'), count: sum('count') }] : [])
  ]
  return {
    statistic: bins.reduce((x, { expected, count }) => x + (count - expected) ** 2 / expected, 0),
    freedom: bins.length - 1
  }
}

/** Critical value that one test in about 100,000 exceeds. Source: Wilson and Hilferty 1931, normal quantile 4.26. */
const limit = (freedom: number) => freedom * (1 - 2 / (9 * freedom) + 4.26 * Math.sqrt(2 / (9 * freedom))) ** 3

const follows = (counts: ArrayLike<number>, probabilities: ArrayLike<number>) => {
  const { statistic, freedom } = chiSquare(counts, probabilities)
  if (freedom > 0) assert.ok(statistic < limit(freedom), `chi-square ${statistic} with ${freedom} degrees of freedom`)
}

const countsOf = (n: number, size: number, next: (i: number) => number) => {
  const counts = new Uint32Array(size)
  for (let i = 0; i < n; i++) counts[next(i)]! += 1
  return counts
}

describe('sampler', () => {
  it('samples follow the distribution: over seeds, sequences and positions', () =>
    fc.assert(
      fc.property(logits, tokens(50), fc.nat(), (l, ids, seed) => {
        const probabilities = softmax(l)
        const uniforms: ((i: number) => number)[] = [
          (i) =>
            rngOf(seed + i)
              .foldIn(ids)
              .uniform(),
          (i) => rngOf(seed, i).foldIn(ids).uniform(),
          (i) =>
            rngOf(seed)
              .foldIn([...ids, i])
              .uniform(),
          (i) => rngOf(seed).foldIn(ids).uniform(i)
        ]
        for (const uniform of uniforms)
          follows(
            countsOf(3000, l.length, (i) => sampleIndex(l, uniform(i))),
            probabilities
          )
      }),
      { numRuns: 12, seed: 1 }
    ))

  it('two positions of one text are sampled independently', () => {
    const uniform = Float32Array.from({ length: 4 }, () => 0)
    const pairs = countsOf(16000, 16, (seed) => {
      const [a, b] = [rngOf(seed).foldIn([3]), rngOf(seed).foldIn([3]).foldIn([9])]
      return 4 * sampleIndex(uniform, a.uniform()) + sampleIndex(uniform, b.uniform())
    })
    follows(pairs, new Array(16).fill(1 / 16))
  })

  it('the random generator depends on the tokens, not on how they were folded in', () =>
    fc.assert(
      fc.property(tokens(9), tokens(9), fc.nat(), (a, b, seed) =>
        assert.equal(
          rngOf(seed).foldIn(a).foldIn(b).uniform(),
          rngOf(seed)
            .foldIn([...a, ...b])
            .uniform()
        )
      )
    ))

  it('a forbidden token is never sampled, and with all tokens forbidden there is an error', () => {
    fc.assert(
      fc.property(logits, fc.double({ min: 0, max: 1, noNaN: true }), (l, u) =>
        assert.ok(l[sampleIndex(l, u)]! > Number.NEGATIVE_INFINITY)
      )
    )
    assert.throws(() => sampleIndex(new Float32Array(3).fill(Number.NEGATIVE_INFINITY), 0.5), RangeError)
  })

  describe('in generate', () => {
    let model: InternVL
    before(() => {
      model = tinyModel()
    })

    const options: readonly GenerateOptions[] = [
      { temperature: 1.7, topK: 0 },
      { topP: 0.6, topK: 0 },
      { topK: 4 },
      { minP: 0.2 },
      { typicalP: 0.7 }
    ]
    for (const filter of options) {
      it(`first tokens follow the filtered distribution: ${JSON.stringify(filter)}`, async () => {
        const inputs = makeInputs([[4, 9]])
        const o: GenerateOptions = { ...filter, doSample: true, seed: 2, maxNewTokens: 1, numReturnSequences: 1500 }
        const { sequences } = await generateAll(model, inputs, o)
        const raw = tf.tidy(
          () => model({ inputIds: inputs.inputIds }).logits.slice([0, 1, 0], [1, 1, -1]).dataSync() as Float32Array
        )
        const filtered = logitsProcessors(o, 2, 1).reduce((l, process) => process([4, 9], l, 2), raw)
        const counts = countsOf(sequences.length, raw.length, (i) => sequences[i]![0]!)
        follows(counts, softmax(filtered))
        disposeInputs(inputs)
      })
    }

    it('a temperature of 0 is greedy', async () => {
      const inputs = makeInputs([[4, 9]])
      const cold = await generateAll(model, inputs, { doSample: true, temperature: 0, maxNewTokens: 5 })
      assert.deepEqual(cold.sequences, (await generateAll(model, inputs, { maxNewTokens: 5 })).sequences)
      disposeInputs(inputs)
    })
  })
})
