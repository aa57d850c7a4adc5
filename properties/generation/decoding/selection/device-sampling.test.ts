import assert from 'node:assert/strict'
import fc from 'fast-check'
import { type GenerateOptions, generateAll } from '../../../../generation/decoding/generate.js'
import { isSampling } from '../../../../generation/decoding/generation-options.js'
import { compose, logitsProcessors } from '../../../../generation/decoding/logits-processors.js'
import { softmax, topIndices } from '../../../../generation/decoding/logits-warpers.js'
import { sampleIndex } from '../../../../generation/decoding/sampling.js'
import { deviceSampling, tokensOnDevice } from '../../../../generation/decoding/selection/device-sampling.js'
import { tf } from '../../../../lib/tf.js'
import { withTensorflowKernels } from '../../../lib/engines/tensorflow-kernels/with-tensorflow-kernels.js'
import { disposeInputs, makeInputs, tinyModel } from '../../tiny.js'

const V = 40

/** Logits with ties: multiples of 1/8, as of a head in 16 bits. */
const logits = fc.array(
  fc.integer({ min: -40, max: 40 }).map((n) => n / 8),
  { minLength: V, maxLength: V }
)

const options: fc.Arbitrary<GenerateOptions> = fc.record({
  doSample: fc.boolean(),
  temperature: fc.constantFrom(0, 0.5, 1, 1.7),
  topK: fc.constantFrom(0, 1, 5, 50),
  topP: fc.constantFrom(0.0513, 0.613, 0.9017, 1),
  minP: fc.constantFrom(0, 0.07),
  repetitionPenalty: fc.constantFrom(1, 1.25),
  presencePenalty: fc.constantFrom(0, 0.5),
  frequencyPenalty: fc.constantFrom(0, 0.25)
})

const row = fc.record({
  o: options,
  logits,
  ids: fc.array(fc.integer({ min: 0, max: V + 3 }), { minLength: 2, maxLength: 12 }),
  uniform: fc.double({ min: 1e-9, max: 1, maxExcluded: true, noNaN: true })
})

describe('sampling on the device', () => {
  it('selects the tokens of the host with the same uniform numbers, rows of different options together', () =>
    fc.assert(
      fc.property(fc.array(row, { minLength: 1, maxLength: 4 }), (rows) => {
        const before = tf.memory().numTensors
        const x = tf.tensor2d(
          rows.map((r) => r.logits),
          [rows.length, V]
        )
        const tokens = tokensOnDevice(
          x,
          rows.map(({ o, ids, uniform }) => ({ settings: deviceSampling(o, 1, 8)!, ids, promptLength: 1, uniform }))
        )
        for (const [n, token] of tokens.dataSync().entries()) {
          const { o, ids, uniform, logits: values } = rows[n]!
          const processed = compose(logitsProcessors(o, 1, 8))(ids, Float32Array.from(values), 1)
          if (!isSampling(o)) assert.equal(token, topIndices(processed, 1)[0])
          else if (token !== sampleIndex(processed, uniform)) {
            const p = softmax(processed)
            const lower = p.slice(0, token).reduce((a, b) => a + b, 0)
            assert.ok(p[token]! > 0, `row ${n}: a forbidden token`)
            assert.ok(
              lower - 1e-5 < uniform && uniform < lower + p[token]! + 1e-5,
              `row ${n}: ${uniform} is not of token ${token}`
            )
          }
        }
        tf.dispose([x, tokens])
        assert.equal(tf.memory().numTensors, before)
      }),
      { numRuns: 150, seed: 1 } // no sum of probabilities within rounding of topP
    ))

  it('a vocabulary of 150 000: the token of the host, or one at whose border the uniform number is', () => {
    const many = 150_000
    const values = tf.tidy(() => tf.randomNormal([many], 0, 2, 'float32', 3).dataSync() as Float32Array)
    for (const o of [{ topK: 0 }, { topK: 0, topP: 0.9 }, {}] as const)
      for (const uniform of [0.001, 0.37, 0.9999999]) {
        const settings = deviceSampling({ doSample: true, ...o }, 1, 8)!
        const [token] = tf.tidy(() =>
          tokensOnDevice(tf.tensor2d(values, [1, many]), [{ settings, ids: [], promptLength: 0, uniform }]).dataSync()
        )
        const p = softmax(compose(logitsProcessors({ doSample: true, ...o }, 1, 8))([], values, 0))
        const lower = p.subarray(0, token!).reduce((a, b) => a + b, 0)
        assert.ok(
          lower - 1e-4 < uniform && uniform < lower + p[token!]! + 1e-4,
          `${JSON.stringify(o)}, ${uniform}: ${token}, ${lower}`
        )
      }
  })

  it('options with a processor on the host are not selected there', () => {
    for (const o of [
      { typicalP: 0.5 },
      { badWords: [[1, 2]] },
      { noRepeatNgramSize: 2 },
      { logitsProcessors: [(_: unknown, l: Float32Array) => l] }
    ])
      assert.equal(deviceSampling({ doSample: true, ...o }, 1, 8), undefined)
    assert.equal(deviceSampling({ doSample: true, topK: 7, topP: 0.5 }, 1, 8)!.topK, 7)
  })

  describe('in generate', () => {
    withTensorflowKernels()

    /** The result of `f`, and the number of values of each tensor that it read back. */
    const readsOf = async <A>(f: () => Promise<A>): Promise<readonly [A, readonly number[]]> => {
      const backend = tf.backend()
      const { read } = backend
      const sizes: number[] = []
      backend.read = async (id) => {
        const values = await read.call(backend, id)
        sizes.push(values.length)
        return values
      }
      try {
        return [await f(), sizes]
      } finally {
        backend.read = read
      }
    }

    for (const o of [{ topP: 0.8 }, { topK: 4, temperature: 1.4 }, { repetitionPenalty: 1.3, frequencyPenalty: 0.5 }] as const)
      it(`the answers of the host for each seed, and two numbers of a row are read back: ${JSON.stringify(o)}`, async () => {
        const model = tinyModel()
        const inputs = makeInputs([
          [4, 9],
          [7, 5]
        ])
        const shared = { doSample: true, ...o, maxNewTokens: 6, numReturnSequences: 3 }
        for (const seed of [1, 2, 3]) {
          const [{ sequences }, reads] = await readsOf(() => generateAll(model, inputs, { ...shared, seed }))
          assert.ok(reads.length >= Math.max(...sequences.map((ids) => ids.length)))
          assert.ok(
            reads.every((size) => size <= 12),
            String(reads)
          )
          // an output of the logits needs the host
          const [host, logitReads] = await readsOf(() => generateAll(model, inputs, { ...shared, seed, outputLogits: true }))
          assert.ok(logitReads.some((size) => size > 12))
          assert.deepEqual(sequences, host.sequences)
        }
        disposeInputs(inputs)
      })
  })
})
