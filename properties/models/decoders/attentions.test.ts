import assert from 'node:assert/strict'
import { getOrThrow } from '../../../lib/error.js'
import { record } from '../../../lib/tap/record.js'
import { tap } from '../../../lib/tap/tap.js'
import { tf } from '../../../lib/tf.js'
import { parseConfig } from '../../../models/config/parse-config.js'
import { decoderFor } from '../../../models/decoders/index.js'
import { assertClose } from '../../laws/close.js'
import { attentionReference, wave, waveParams } from '../../reference/attentions/attentions.js'
import { type Packed, unpack } from '../../reference/layers.js'

const configOf = (text: object) =>
  getOrThrow(parseConfig({ model_type: 'internvl', text_config: text, vision_config: {} })).textConfig

/** Rows of padding have no meaning: the second batch row begins with two of them. */
const withoutPadding = (weights: tf.Tensor4D): tf.Tensor[] => [
  weights.slice([0, 0, 0, 0], [1, -1, -1, -1]),
  weights.slice([1, 0, weights.shape[2] > 2 ? 2 : 0, 0], [1, -1, -1, -1])
]

const assertWeights = (actual: tf.Tensor4D, expected: Packed, message: string): void => {
  const reference = unpack<tf.Tensor4D>(expected)
  assert.deepEqual(actual.shape, reference.shape, message)
  for (const [i, rows] of withoutPadding(actual).entries()) assertClose(rows, withoutPadding(reference)[i]!, 1e-5, message)
}

describe('attention weights', () => {
  for (const [name, { config, first, second }] of Object.entries(attentionReference.decoders)) {
    const run = (outputAttentions: boolean | readonly number[], taps = record([])) => {
      const module = decoderFor(configOf(config))
      const decoder = tap(module, taps).apply(waveParams(module))
      const embeds = wave('embeds', [2, 9, config.hidden_size as number]) as tf.Tensor3D
      const mask = tf.tensor2d([Array(9).fill(1), [0, 0, ...Array(7).fill(1)]], [2, 9], 'int32')
      const [head, tail] = tf.split(embeds, [7, 2], 1) as [tf.Tensor3D, tf.Tensor3D]
      const before = decoder(head, { attentionMask: mask.slice([0, 0], [2, 7]), useCache: true, outputAttentions })
      const after = decoder(tail, { attentionMask: mask, cache: before.cache, useCache: true, outputAttentions })
      return [before, after] as const
    }

    it(`${name}: those of Transformers, with and without a cache`, () =>
      tf.tidy(() => {
        const outputs = run(true)
        for (const [i, expected] of [first, second].entries())
          for (const [layer, packed] of expected.entries())
            assertWeights(outputs[i]!.attentions![layer]!, packed, `forward ${i}, layer ${layer}`)
      }))

    it(`${name}: the states are those without the output, bit for bit; chosen layers in their order`, () =>
      tf.tidy(() => {
        const [plain, all, some] = [run(false), run(true), run([-1, 0])]
        for (const i of [0, 1] as const) {
          assert.deepEqual(all[i].hidden.dataSync(), plain[i].hidden.dataSync())
          assert.equal(plain[i].attentions, undefined)
          assert.deepEqual(
            some[i].attentions!.map((weights) => weights.dataSync()),
            [1, 0].map((layer) => all[i].attentions![layer]!.dataSync())
          )
        }
      }))

    it(`${name}: a tap on attention_weights records them`, () => {
      const recorder = record(['layers.*.self_attn.attention_weights'])
      tf.tidy(() => {
        const outputs = run(true, recorder)
        for (const layer of [0, 1])
          for (const [call, recorded] of recorder.outputs[`layers.${layer}.self_attn.attention_weights`]!.entries())
            assert.deepEqual(recorded.dataSync(), outputs[call]!.attentions![layer]!.dataSync())
      })
      recorder.dispose()
    })
  }

  it('a layer outside the model is named', () => {
    const module = decoderFor(configOf(attentionReference.decoders.qwen3!.config))
    tf.tidy(() => {
      const decoder = module.apply(waveParams(module))
      assert.throws(
        () => decoder(tf.zeros([1, 2, 8]), { outputAttentions: [0, 2] }),
        /outputAttentions: expected layers from -2 to 1, got 2/
      )
    })
  })
})
