import assert from 'node:assert/strict'
import { answer } from '../../../generation/answer.js'
import { type InternVLCheckpoint, load } from '../../../generation/checkpoint/load.js'
import { bestOf } from '../../../generation/evaluate/best-of.js'
import { processRewardScorer, processRewards } from '../../../generation/evaluate/process-reward.js'
import { tf } from '../../../lib/tf.js'
import type { Messages } from '../../../processors/text/messages.js'

const question: Messages = [{ role: 'user', content: 'Describe the image.' }]
const drawing = { n: 4, seed: 5, temperature: 3, maxNewTokens: 12 }
const brevity = (_: Messages, text: string) => -text.length

describe('bestOf', () => {
  let internvl: InternVLCheckpoint
  before(async () => {
    internvl = await load()
  })
  after(() => internvl.dispose())

  it('returns all sampled answers, best first, and the same answers with the same seed', async () => {
    const { n, ...options } = drawing
    const { texts, result } = await answer(internvl, [question], { ...options, doSample: true, numReturnSequences: n })
    assert.equal(texts.length, n)
    assert.deepEqual(texts, internvl.processor.batchDecode(result.sequences, { skipSpecialTokens: true }))
    assert.ok(new Set(texts).size > 1, 'they differ')
    const before = tf.memory().numTensors
    const scored = await bestOf(internvl, question, { ...drawing, scorer: brevity })
    assert.equal(tf.memory().numTensors, before)
    assert.deepEqual(
      scored.map(({ text }) => text),
      [...texts].sort((a, b) => a.length - b.length)
    )
    for (const { text, score } of scored) assert.equal(score, -text.length)
    assert.deepEqual(await bestOf(internvl, question, { ...drawing, scorer: brevity }), scored)
  })

  it('calls and awaits the scorer once for each text, with the conversation', async () => {
    const asked: string[] = []
    const scorer = async (messages: Messages, text: string) => {
      assert.equal(messages, question)
      return asked.push(text)
    }
    const scored = await bestOf(internvl, question, { ...drawing, temperature: 0.01, scorer })
    assert.equal(scored.length, 4)
    assert.deepEqual(asked, [...new Set(scored.map(({ text }) => text))].reverse())
  })

  it('scores by the mean log-probability of an answer’s tokens if no scorer is given', async () => {
    const { n, ...options } = drawing
    const { texts, result } = await answer(internvl, [question], { ...options, doSample: true, numReturnSequences: n, outputLogprobs: true }) // biome-ignore format: one line
    const expected = texts.map((text, i) => ({ text, score: result.logprobs![i]!.reduce((a, b) => a + b, 0) / result.sequences[i]!.length })) // biome-ignore format: one line
    const scored = await bestOf(internvl, question, { ...drawing, scorer: 'logprob' })
    assert.deepEqual(scored.map(({ text, score }) => ({ text, score })), expected.sort((a, b) => b.score - a.score)) // biome-ignore format: one line
    const pair = { tokenizer: { ...internvl.processor.tokenizer, encode: () => [1, 2] } }
    assert.throws(() => processRewardScorer({ ...internvl, processor: { ...internvl.processor, ...pair } }), /rewardModel: its vocabulary has no token "\+"/) // biome-ignore format: one line
  })

  it('refuses invalid numbers of answers and scores', async () => {
    for (const n of [0, 1.5, Number.NaN])
      await assert.rejects(bestOf(internvl, question, { n, scorer: brevity }), /RangeError: n: expected an integer, 1 or more/)
    const nothing = bestOf(internvl, question, { ...drawing, scorer: () => Number.NaN })
    await assert.rejects(nothing, /RangeError: scorer: expected a number for ".*", got NaN/)
  })

  /** Probability of "+" against "-" as the next token of a conversation. */
  const plusProbability = async (messages: Messages): Promise<number> => {
    const { processor, model } = internvl
    const { inputIds, attentionMask } = await processor
      .prepare([messages])()
      .then((read) => (read._tag === 'Right' ? read.right : assert.fail()))
    const logits = tf.tidy(() => model({ inputIds }, { logitsToKeep: 1 }).logits.dataSync())
    tf.dispose([inputIds, attentionMask])
    const [positive, negative] = ['+', '-'].map((label) => Math.exp(logits[processor.tokenizer.idOf(label)!]!))
    return positive! / (positive! + negative!)
  }

  it('process rewards are the probability of "+" after each step, with one turn per step', async () => {
    const before = tf.memory().numTensors
    const rewards = await processRewards(internvl, question, 'One circle.\n\nIt is red.\n\n', { system: 'Judge.' })
    const first: Messages = [
      { role: 'system', content: 'Judge.' },
      { role: 'user', content: '### Question:\nDescribe the image.\n\n### Solution Process:\nOne circle.' }
    ]
    const second: Messages = [...first, { role: 'assistant', content: '+' }, { role: 'user', content: 'It is red.' }]
    const expected = [await plusProbability(first), await plusProbability(second)]
    assert.equal(rewards.length, 2)
    for (const [i, reward] of rewards.entries()) assert.ok(Math.abs(reward - expected[i]!) < 1e-4, `step ${i}`)
    const score = await processRewardScorer(internvl, { system: 'Judge.' })(question, 'One circle.\n\nIt is red.')
    assert.ok(Math.abs(score - (expected[0]! + expected[1]!) / 2) < 1e-4)
    assert.equal(tf.memory().numTensors, before)
  })

  it('process rewards need a question', () =>
    assert.rejects(
      processRewards(internvl, [...question, { role: 'assistant', content: 'Yes.' }], 'No.'),
      /RangeError: messages: the last message should be a question of the user/
    ))
})
