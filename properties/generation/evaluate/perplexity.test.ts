import assert from 'node:assert/strict'
import { answer } from '../../../generation/answer.js'
import { demoModel, type InternVLCheckpoint, load } from '../../../generation/checkpoint/load.js'
import { answerLogits, answerLosses, answerPerplexity, perplexityOf } from '../../../generation/evaluate/perplexity.js'
import { tf } from '../../../lib/tf.js'
import type { Messages } from '../../../processors/text/messages.js'

const question: Messages = [{ role: 'user', content: 'How many circles are there?' }]

describe('perplexity', () => {
  let internvl: InternVLCheckpoint
  before(async () => {
    internvl = await load(demoModel)
  })
  after(() => internvl.dispose())

  it('of a generated answer has the log-probabilities of generation, end of turn included', async () => {
    const { texts, result } = await answer(internvl, [question], { outputLogprobs: true, doSample: false })
    const known = await answerLogits(internvl, [...question, { role: 'assistant', content: texts[0]! }])
    assert.deepEqual(known.tokens, result.sequences[0])
    const losses = answerLosses(known)
    known.logits.dispose()
    for (const [i, logprob] of result.logprobs![0]!.entries()) assert.ok(Math.abs(losses[i]! + logprob) < 1e-3, `token ${i}`)
  })

  it('of several turns is that of each answer after the turns before', async () => {
    const [first, second]: [Messages, Messages] = [
      [...question, { role: 'assistant', content: 'Two.' }],
      [
        { role: 'user', content: 'What color are they?' },
        { role: 'assistant', content: 'Red.' }
      ]
    ]
    const both = await answerPerplexity(internvl, [[...first, ...second]])
    const alone = await answerPerplexity(internvl, [first])
    assert.ok(both.tokens > alone.tokens)
    const known = await answerLogits(internvl, [...first, ...second])
    const losses = [...answerLosses(known)]
    known.logits.dispose()
    assert.ok(Math.abs(perplexityOf(losses.slice(0, alone.tokens)).loss - alone.loss) < 1e-3)
    assert.equal(both.perplexity, Math.exp(both.loss))
  })

  it('is the mean over all tokens, reports progress, and leaks no tensor', async () => {
    const conversations = ['One.', 'Three.'].map((content): Messages => [...question, { role: 'assistant', content }])
    const before = tf.memory().numTensors
    const done: number[] = []
    const all = await answerPerplexity(internvl, conversations, { onRow: (row) => done.push(row) })
    assert.deepEqual(done, [1, 2])
    assert.equal(tf.memory().numTensors, before)
    const separate = await Promise.all(conversations.map((one) => answerPerplexity(internvl, [one])))
    const mean = separate.reduce((sum, { loss, tokens }) => sum + loss * tokens, 0) / all.tokens
    assert.ok(Math.abs(mean - all.loss) < 1e-6)
  })

  it('refuses conversations without an answer', async () => {
    await assert.rejects(answerPerplexity(internvl, [question]), /RangeError: perplexity: the conversation has no answer/)
    await assert.rejects(answerPerplexity(internvl, []), /RangeError: perplexity: the list of conversations is empty/)
  })
})
