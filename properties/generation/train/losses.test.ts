import assert from 'node:assert/strict'
import fc from 'fast-check'
import { collate, disposeBatch } from '../../../generation/train/data/collate.js'
import type { Sample } from '../../../generation/train/data/sample.js'
import type { PreparedSample } from '../../../generation/train/data/sample-maker.js'
import { pairBatches, pairLoss, rewardMetrics, sftLoss } from '../../../generation/train/losses.js'
import { meanMetrics } from '../../../generation/train/training-loop.js'
import { valueAndGrad } from '../../../lib/autograd/grad.js'
import { causalLoss, logProbabilities } from '../../../lib/nn/losses/cross-entropy.js'
import { tf } from '../../../lib/tf.js'
import type { InternVL } from '../../../models/internvl/internvl.js'
import { check } from '../../laws/check.js'
import { assertClose } from '../../laws/close.js'
import { tinyModel, vocabulary } from '../tiny.js'

/** A text sample with the given supervised positions. */
const textSample = (supervised: readonly boolean[], first: number): Sample => {
  const ids = Int32Array.from(supervised, (_, i) => 2 + ((first + 7 * i) % (vocabulary - 2)))
  const labels = ids.map((id, i) => (supervised[i] ? id : -100))
  return { id: '', ids, labels, pixels: new Float32Array(0), tileSize: { width: 8, height: 8 }, numPatches: [] }
}
/** Each sample has a supervised position, so that the loss is defined. */
const sample = fc
  .record({ supervised: fc.array(fc.boolean(), { minLength: 1, maxLength: 5 }), first: fc.nat(30) })
  .map(({ supervised, first }) => textSample([false, ...supervised, true], first))
const samples = fc.array(sample, { minLength: 1, maxLength: 3 })
const reduction = fc.constantFrom('token', 'sample', 'square')

/** The model with scaled embeddings: the gradient of the scale tests the gradient of the loss. */
const scaled =
  (model: InternVL) =>
  (scale: tf.Scalar): InternVL =>
    Object.assign(
      (inputs: Parameters<InternVL>[0], options?: Parameters<InternVL>[1]) =>
        model.decode(model.embed(inputs).mul(scale), options),
      model
    )

describe('training losses', () => {
  const modelOf = scaled(tinyModel())

  it('logits of the supervised positions alone give the loss and gradient of all logits', () =>
    check(fc.record({ samples, reduction }), ({ samples, reduction }) => {
      const batch = collate(samples, { padId: 0, reduction })
      const { attentionMask, labels, lossWeights } = batch
      const all = (scale: tf.Scalar) => causalLoss(modelOf(scale)(batch, { attentionMask }).logits, labels, lossWeights)
      const [supervised, whole] = [(scale: tf.Scalar) => sftLoss(modelOf)(scale, batch, {}).loss, all].map((loss) =>
        valueAndGrad(loss)(tf.scalar(1.5))
      )
      assertClose(supervised!.value, whole!.value)
      assertClose(supervised!.grads, whole!.grads)
      disposeBatch(batch)
    }))

  it('batches of pairs leave no tensor where the reference fails in the chosen or the rejected answer', async () => {
    const sample = textSample([false, true, true], 3)
    const prepared = [{ sample, rejected: sample }] as readonly PreparedSample[]
    const model = tinyModel()
    for (const failsAt of [1, 2]) {
      let calls = 0
      const reference = Object.assign((...given: Parameters<InternVL>) => {
        if (++calls === failsAt) throw new Error('failed')
        return model(...given)
      }, model) as InternVL
      const before = tf.memory().numTensors
      const batches = pairBatches(() => [prepared], reference, { padId: 0 })(0)
      await assert.rejects(async () => {
        for await (const _ of batches) assert.fail('a batch without a reference')
      }, /failed/)
      assert.equal(tf.memory().numTensors, before)
    }
  })

  it('answers of pairs have the log-probabilities of all logits', () =>
    check(samples, (samples) => {
      const [chosen, rejected] = [samples, samples.map((sample) => ({ ...sample, labels: sample.labels.map((x, i) => (i < 2 ? -100 : x)) }))].map((group) => collate(group, { padId: 0 })) // biome-ignore format: one line
      const model = modelOf(tf.scalar(1))
      const logs = [chosen!, rejected!].map((batch) => [...logProbabilities(model(batch, batch).logits, batch.labels).dataSync()])
      const loss = (reference: readonly (readonly number[])[]) =>
        pairLoss(() => model, { weights: { dpo: 1 } })(
          {},
          { chosen: chosen!, rejected: rejected!, reference: { chosen: reference[0]!, rejected: reference[1]! } },
          {}
        ).loss
      assertClose(loss(logs), tf.scalar(Math.log(2))) // the reference is the model: no answer is preferred
      for (const batch of [chosen!, rejected!]) disposeBatch(batch)
    }))

  it('metrics of pairs are means over pairs, and those of a step the weighted mean over its batches', () =>
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: -9, max: 9 }), fc.integer({ min: -9, max: 9 })), { minLength: 2 }),
        fc.nat(9),
        (pairs, cut) => {
          const at = 1 + (cut % (pairs.length - 1))
          const metricsOf = (some: typeof pairs) =>
            rewardMetrics({ chosen: some.map(([x]) => x), rejected: some.map(([, y]) => y) })
          const parts = [pairs.slice(0, at), pairs.slice(at)].map((some) => [metricsOf(some), some.length] as const)
          const [whole, joined] = [metricsOf(pairs), meanMetrics(parts)]
          for (const name of Object.keys(whole)) assert.ok(Math.abs(whole[name]! - joined[name]!) < 1e-9, name)
          assert.ok(Math.abs(whole['rewards/margins']! - (whole['rewards/chosen']! - whole['rewards/rejected']!)) < 1e-9)
          assert.equal(whole['rewards/accuracies'], pairs.filter(([x, y]) => x > y).length / pairs.length)
        }
      )
    ))
})
