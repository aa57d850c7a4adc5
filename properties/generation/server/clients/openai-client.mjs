import assert from 'node:assert/strict'
import OpenAI from 'openai'
import { zodResponseFormat } from 'openai/helpers/zod'
import { z } from 'zod'
import { colour, input, messages, question, tools } from './client-input.mjs'

const client = new OpenAI({ baseURL: `${input.url}/v1`, apiKey: input.key, maxRetries: 0 })
const model = input.model
const create = (request) => client.chat.completions.create({ model, messages, max_completion_tokens: 24, ...request })

const { data } = await client.models.list()
assert.equal(data[0].id, model)

const whole = await create({})
assert.equal(whole.choices[0].message.content, input.expected)
assert.ok(whole.usage.prompt_tokens_details.image_tokens > 0)

let streamed = ''
let usage
for await (const chunk of await create({ stream: true, stream_options: { include_usage: true } })) {
  streamed += chunk.choices[0]?.delta.content ?? ''
  usage ??= chunk.usage
}
assert.equal(streamed, input.expected)
assert.equal(usage.total_tokens, whole.usage.total_tokens)

const many = await create({ n: 3, temperature: 1, seed: 1, logprobs: true, top_logprobs: 3 })
assert.equal(many.choices.length, 3)
assert.equal(many.choices[2].logprobs.content[0].top_logprobs.length, 3)

const parsed = await client.chat.completions.parse({
  model,
  messages,
  max_completion_tokens: 60,
  response_format: zodResponseFormat(z.object({ colour: z.enum(['red', 'blue']) }), 'colour')
})
assert.ok(['red', 'blue'].includes(parsed.choices[0].message.parsed.colour))

const called = await create({ tools, tool_choice: 'required', max_completion_tokens: 80 })
const [call] = called.choices[0].message.tool_calls
assert.equal(called.choices[0].finish_reason, 'tool_calls')
assert.ok(colour(call.function.arguments))
const after = await create({
  tools,
  messages: [...messages, called.choices[0].message, { role: 'tool', tool_call_id: call.id, content: 'painted' }]
})
assert.equal(typeof after.choices[0].message.content, 'string')

const stream = await create({ stream: true, max_completion_tokens: 500, logit_bias: { 10: 100 } })
for await (const _ of stream) break // the connection is closed: the server frees the slot

const { data: vectors } = await client.embeddings.create({ model, input: [input.image] })
assert.ok(vectors[0].embedding.length > 8)

await assert.rejects(create({ temperature: 3 }), (error) => error.status === 400 && error.param === 'temperature')
await assert.rejects(create({ model: 'other' }), OpenAI.NotFoundError)
await assert.rejects(new OpenAI({ baseURL: `${input.url}/v1`, apiKey: 'wrong-key-x', maxRetries: 0 }).models.list(), OpenAI.AuthenticationError)
const left = new AbortController()
const aborted = client.chat.completions.create({ model, messages: [question('Hi')], max_tokens: 500, logit_bias: { 10: 100 } }, { signal: left.signal })
setTimeout(() => left.abort(), 100)
await assert.rejects(aborted, OpenAI.APIUserAbortError)
