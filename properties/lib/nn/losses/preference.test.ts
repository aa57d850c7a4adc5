import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { valueGradAndAux } from '../../../../lib/autograd/grad.js'
import { logProbabilities } from '../../../../lib/nn/losses/cross-entropy.js'
import {
  dpo,
  initialRewardMean,
  mpo,
  type PreferencePair,
  preferenceLoss,
  type RunningRewardMean
} from '../../../../lib/nn/losses/preference.js'
import { tf } from '../../../../lib/tf.js'
import { assertClose } from '../../../laws/close.js'
import { unpack } from '../../../reference/layers.js'

const { labels, steps, beta } = JSON.parse(readFileSync(new URL('../../../reference/losses.json', import.meta.url), 'utf8'))

/** Rows 0 and 1 are chosen answers, 2 and 3 the rejected ones. */
const pairsOf = (logits: tf.Tensor3D): PreferencePair<tf.Tensor1D> => {
  const all = logProbabilities(logits, tf.tensor2d(labels, undefined, 'int32'))
  return { chosen: all.slice(0, 2), rejected: all.slice(2, 2) }
}
const referenceOf = (logs: readonly number[]) => ({ chosen: logs.slice(0, 2), rejected: logs.slice(2) })
const chosenTokens = labels.slice(0, 2).flat().filter((label: number) => label !== -100).length // biome-ignore format: one line

describe('preference losses', () => {
  for (const name of ['dpo', 'bco', 'nll', 'mpo'] as const)
    it(`${name}, its gradient and its running reward mean equal PyTorch’s over three batches`, () =>
      tf.tidy(() => {
        const of = name === 'mpo' ? mpo : preferenceLoss({ weights: { [name]: 1 }, beta })
        let shift: RunningRewardMean = initialRewardMean
        for (const step of steps) {
          const loss = ({ z }: { readonly z: tf.Tensor3D }) => {
            const found = of(pairsOf(z), referenceOf(step.reference), chosenTokens, shift)
            return [found.loss, found] as const
          }
          const { value, grads, aux } = valueGradAndAux(loss)({ z: unpack(step.logits) })
          shift = aux.rewardMean
          assertClose(value, tf.scalar(step[name]))
          assertClose(grads.z, unpack(step.gradient[name]))
          for (const [part, found] of Object.entries(aux.parts)) assert.ok(Math.abs(found - step[part]) < 1e-5, part)
          assert.ok(Math.abs(shift.mean - step.shift) < 1e-5, `${shift.mean}, expected ${step.shift}`)
        }
      }))

  it('DPO of a policy equal to the reference is log 2, and the terms are reported by name', () =>
    tf.tidy(() => {
      const logs = { chosen: tf.tensor1d([-3, -7]), rejected: tf.tensor1d([-5, -1]) }
      const { loss, parts, rewards } = dpo(logs, { chosen: [-3, -7], rejected: [-5, -1] }, 4)
      assertClose(loss, tf.scalar(Math.LN2))
      assert.deepEqual(Object.keys(parts), ['dpo'])
      assert.deepEqual(rewards.chosen, [0, 0])
    }))

  it('refuses weights that are all zero', () => {
    const none = preferenceLoss({ weights: { dpo: 0 } })
    const logs = { chosen: tf.tensor1d([0]), rejected: tf.tensor1d([0]) }
    assert.throws(() => none(logs, { chosen: [0], rejected: [0] }, 1), /the weights of dpo, bco and nll are all 0/)
    tf.dispose([logs.chosen, logs.rejected])
  })
})
