import assert from 'node:assert/strict'
import fc from 'fast-check'
import { type Corners, renderGrounding } from '../../../../generation/grounding.js'
import {
  type Answer,
  type AnswerToken,
  atEnd,
  type ChatChunk,
  chatBody,
  type Exchange,
  emptyAnswer,
  groundingsFor,
  type Medium,
  tokensPerSecond,
  withChunk
} from '../../../../generation/server/page/exchange.js'
import { heatTarget } from '../../../../generation/server/page/heat/heat-request.js'
import { sseEvents } from '../../../../generation/server/page/sse-events.js'

const settings = {
  system: '',
  maxTokens: undefined,
  temperature: undefined,
  seed: undefined,
  maxPatches: undefined,
  numFrames: undefined
}

const token = (text: string): AnswerToken => ({ token: text, logprob: -0.5, top_logprobs: [{ token: text, logprob: -0.5 }] })

/** A chunk as the server sends one: special tokens have no content. */
const chunk = (text: string): ChatChunk => ({
  choices: [{ delta: { content: /^<.*>$/.test(text) ? '' : text }, logprobs: { content: [token(text)] }, finish_reason: null }]
})

const answered = (fields: Partial<Answer>): Answer => ({ ...emptyAnswer(0), status: 'finished', text: 'yes', ...fields })
const image = (id: number): Medium => ({
  id,
  kind: 'image',
  name: `${id}.png`,
  url: `data:image/png;base64,${id}`,
  preview: 'blob:1'
})
const exchange = (id: number, media: readonly Medium[], answer: Partial<Answer> = {}): Exchange => ({
  id,
  question: `question ${id}`,
  media,
  answer: answered(answer)
})

describe('page: events of a stream', () => {
  it('are the same however the bytes arrive, comments and characters of several bytes among them', async () => {
    const text = fc.string({ unit: 'grapheme' }).map((value) => JSON.stringify({ value }))
    await fc.assert(
      fc.asyncProperty(fc.array(text), fc.array(fc.nat(200)), async (events, cuts) => {
        const bytes = new TextEncoder().encode(
          `: waiting\n\n${events.map((event) => `data: ${event}\n\n`).join('')}data: [DONE]\n\n`
        )
        const edges = [0, ...cuts.map((cut) => Math.min(cut, bytes.length)).sort((a, b) => a - b), bytes.length]
        const parts = edges.slice(1).map((end, i) => bytes.subarray(edges[i], end))
        const read: string[] = []
        for await (const event of sseEvents(
          (async function* () {
            yield* parts
          })()
        ))
          read.push(event)
        assert.deepEqual(read, events)
      })
    )
  })
})

describe('page: exchanges', () => {
  it('chunks add up to the text, the tokens and the groundings, whose tags are special tokens', () => {
    const texts = ['The ', '<ref>', 'cat', '</ref>', '<box>', '[[10, 20, 300, 400]]', '</box>', '.']
    const answer = texts.reduce((sum, text, i) => withChunk(sum, chunk(text), 1000 + 100 * i), emptyAnswer(900))
    assert.equal(answer.text, 'The cat[[10, 20, 300, 400]].')
    assert.equal(answer.grounded, texts.join(''))
    assert.deepEqual(
      answer.tokens.map((value) => value.token),
      texts
    )
    assert.deepEqual([answer.status, answer.firstAt, answer.lastAt, tokensPerSecond(answer)], ['streaming', 1000, 1700, 10])
    assert.equal(atEnd(answer).status, 'failed')
    assert.equal(atEnd({ ...answer, finishReason: 'stop' }).status, 'finished')
    const failed = withChunk(answer, { choices: [], error: { message: 'The engine crashed.' } }, 2000)
    assert.deepEqual([failed.status, failed.error, failed.text], ['failed', 'The engine crashed.', answer.text])
  })

  it('a request has all answered turns with their images, and leaves out questions without an answer', () => {
    const all = [
      exchange(0, [image(1)]),
      exchange(1, [image(2)], { status: 'failed', text: '', error: 'no' }),
      exchange(2, [], { status: 'stopped', text: 'so far' }),
      exchange(3, [], { status: 'stopped', text: '' }),
      exchange(4, [image(3), image(4)], { status: 'waiting', text: '' })
    ]
    const { messages, ...fields } = chatBody(all, {
      ...settings,
      system: 'Be brief.',
      maxTokens: 9,
      temperature: 0,
      maxPatches: 6
    })
    const image_url = (id: number) => ({ type: 'image_url', image_url: { url: image(id).url } })
    assert.deepEqual(messages, [
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: [image_url(1), { type: 'text', text: 'question 0' }] },
      { role: 'assistant', content: 'yes' },
      { role: 'user', content: 'question 2' },
      { role: 'assistant', content: 'so far' },
      { role: 'user', content: [image_url(3), image_url(4), { type: 'text', text: 'question 4' }] }
    ])
    const streamed = { stream: true, stream_options: { include_usage: true }, logprobs: true, top_logprobs: 5 }
    assert.deepEqual(fields, { ...streamed, max_completion_tokens: 9, temperature: 0, max_patches: 6 })
  })

  it('a heat map is asked for with the conversation and the answer up to the token, over an image that the prompt shows', () => {
    const video: Medium = { ...image(9), kind: 'video' }
    const tokens = ['A', ' red', ' ', '!', '<|im_end|>'].map(token)
    const grounded = 'A red !'
    const all = [
      exchange(0, [image(1)]),
      exchange(1, [image(2)], { status: 'failed', text: '' }), // not in the prompt, nor are its images
      exchange(2, [video, image(3)], { tokens, grounded }),
      exchange(3, [image(4)])
    ]
    const upTo = all.slice(0, 3)
    const asked = (at: number, preferred?: Medium) => heatTarget(upTo, { ...settings, maxPatches: 6 }, at, preferred)
    const { messages } = chatBody(upTo, settings)
    const body = { messages, answer: 'A red', token: -1, max_patches: 6 }
    const target = { exchangeId: 2, token: 1, text: 'red' }
    assert.deepEqual(asked(1), { ...target, medium: image(3), body: { ...body, image: 1 } })
    assert.deepEqual(asked(1, image(1)), { ...target, medium: image(1), body: { ...body, image: 0 } })
    for (const other of [image(2), image(4), video]) assert.deepEqual(asked(1, other), asked(1))
    for (const at of [2, 4, 5]) assert.match(String(asked(at)), /no text of the answer/)
    const bare = [exchange(0, [image(1)], { tokens: ['A', 'red', '!'].map(token), grounded })] // tokens decoded without their spaces
    const answers = [0, 1, 2].map((at) => (heatTarget(bare, settings, at) as { body: { answer: string } }).body.answer)
    assert.deepEqual(answers, ['A', 'A red', 'A red !'])
    assert.match(String(heatTarget([exchange(0, [video], { tokens, grounded })], settings, 0)), /no image was shown/)
  })

  it('boxes belong to the image that was shown last before them', () => {
    const grounded = (label: string) => renderGrounding({ label, boxes: [[1, 2, 3, 4] satisfies Corners] })
    const all = [
      exchange(0, [image(1)], { grounded: grounded('cat') }),
      exchange(1, [], { grounded: grounded('dog') }),
      exchange(2, [], { grounded: 'no boxes' }),
      exchange(3, [image(2)], { grounded: grounded('bird') })
    ]
    const labels = [1, 2, 3].map((id) => groundingsFor(all, id).map(({ label }) => label))
    assert.deepEqual(labels, [['dog'], ['bird'], []])
  })
})
