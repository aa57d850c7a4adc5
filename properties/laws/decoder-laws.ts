import assert from 'node:assert/strict'
import fc from 'fast-check'
import { tf } from '../../lib/tf.js'
import type { TextConfig } from '../../models/config/parse-config.js'
import type { Decoder, Hidden, KVCache } from '../../models/decoders/decoder.js'
import { decoderFor } from '../../models/decoders/index.js'
import { count, randomParams, randomTensor, seed } from '../arbitraries/tensor.js'
import { check } from './check.js'
import { assertClose } from './close.js'
import { moduleLaws } from './module-laws.js'

const rows = (x: Hidden, from: number, to: number): Hidden => x.slice([0, from, 0], [-1, to - from, -1])

/** One length of rotary frequencies for all compared forwards: some rope types depend on the length. */
const options = { ropeLength: 32 }

/** `count` padding positions, then the states. */
const padded = (x: Hidden, count: number): Hidden =>
  count === 0 ? x : tf.concat([randomTensor<Hidden>([x.shape[0], count, x.shape[2]], 77), x], 1)

/** Attention mask and positions of rows with `counts[i]` padding positions each. */
const paddingOf = (counts: readonly number[], length: number) => ({
  attentionMask: tf.tensor2d(
    counts.map((n) => Array.from({ length }, (_, i) => Number(i >= n))),
    undefined,
    'int32'
  ),
  positionIds: counts.map((n) => Array.from({ length }, (_, i) => Math.max(0, i - n)))
})

/** The laws of a module and of a causal language model, on generated configurations: one line for a new decoder. */
export const decoderLaws = (name: string, configs: fc.Arbitrary<TextConfig>): void => {
  const made = (c: TextConfig, seed: number): Decoder => {
    const module = decoderFor(c)
    return module.apply(randomParams(module, seed))
  }
  const samples = fc.record({ c: configs, seed, length: count(9, 2), batch: count(2) })
  const input = ({ c, seed, length, batch }: { c: TextConfig; seed: number; length: number; batch: number }): Hidden =>
    randomTensor([batch, length, c.hiddenSize], seed)

  moduleLaws(
    name,
    configs,
    (c) => ({ module: decoderFor(c), input: [2, 5, c.hiddenSize], output: [2, 5, c.hiddenSize] }),
    (forward, x) => forward(x as Hidden).hidden
  )

  describe(`${name}: a decoder`, () => {
    it('later tokens do not change earlier states', () =>
      check(fc.tuple(samples, count(8)), ([draw, at]) => {
        const [decoder, x] = [made(draw.c, draw.seed), input(draw)]
        const [first, y] = [Math.min(at, draw.length - 1), input({ ...draw, seed: draw.seed + 1 })]
        const changed = tf.concat([rows(x, 0, first), rows(y, first, draw.length)], 1)
        assertClose(rows(decoder(changed, options).hidden, 0, first), rows(decoder(x, options).hidden, 0, first))
      }))

    it('steps with a cache equal one full forward, and a step leaves only its output tensors', () =>
      check(fc.tuple(samples, fc.array(count(3), { maxLength: 8 })), ([draw, sizes]) => {
        const [decoder, x] = [made(draw.c, draw.seed), input(draw)]
        const ends = sizes.map((_, i) => sizes.slice(0, i + 1).reduce((a, b) => a + b)).filter((end) => end < draw.length)
        let cache: KVCache | undefined
        const outputs = [...ends, draw.length].map((to, i) => {
          const chunk = rows(x, ends[i - 1] ?? 0, to)
          const before = tf.memory().numTensors
          const out = decoder(chunk, { ...options, cache, useCache: true })
          assert.equal(tf.memory().numTensors - before, 1 + 2 * draw.c.numHiddenLayers)
          cache = out.cache
          return out.hidden
        })
        assertClose(tf.concat(outputs, 1), decoder(x, options).hidden)
      }))

    it('padding on the left changes nothing', () =>
      check(fc.tuple(samples, count(4)), ([draw, n]) => {
        const [decoder, x] = [made(draw.c, draw.seed), input(draw)]
        const padding = paddingOf(Array<number>(draw.batch).fill(n), draw.length + n)
        const out = decoder(padded(x, n), { ...options, ...padding }).hidden
        assertClose(rows(out, n, draw.length + n), decoder(x, options).hidden)
      }))

    it('a batch of rows of several lengths equals each row alone', () =>
      check(fc.tuple(samples, count(8)), ([{ c, seed, length }, other]) => {
        const decoder = made(c, seed)
        const alone = [length, Math.min(other, length)].map((n, i) => input({ c, seed: seed + i, length: n, batch: 1 }))
        const counts = alone.map((x) => length - x.shape[1])
        const batch = tf.concat(alone.map((x, i) => padded(x, counts[i]!)))
        const out = decoder(batch, { ...options, ...paddingOf(counts, length) }).hidden
        alone.forEach((x, i) => {
          const row = out.slice([i, 0, 0], [1, -1, -1])
          assertClose(rows(row, counts[i]!, length), decoder(x, options).hidden, undefined, `row ${i}`)
        })
      }))

    it('hidden states begin with the embeddings and end with the output', () =>
      check(samples, (draw) => {
        const x = input(draw)
        const { hidden, hiddenStates = [] } = made(draw.c, draw.seed)(x, { outputHiddenStates: true })
        assert.equal(hiddenStates.length, draw.c.numHiddenLayers + 1)
        assertClose(hiddenStates[0]!, x, 0)
        assertClose(hiddenStates.at(-1)!, hidden, 0)
      }))
  })
}
