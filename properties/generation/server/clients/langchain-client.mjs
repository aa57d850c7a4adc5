import assert from 'node:assert/strict'
import { HumanMessage } from '@langchain/core/messages'
import { ChatOpenAI } from '@langchain/openai'
import { colour, input, parameters, question, tools } from './client-input.mjs'

const chat = (fields = {}) =>
  new ChatOpenAI({
    model: input.model,
    apiKey: input.key,
    maxTokens: 24,
    maxRetries: 0,
    configuration: { baseURL: `${input.url}/v1` },
    ...fields
  })
const messages = [new HumanMessage(question(input.question))]

const whole = await chat().invoke(messages)
assert.equal(whole.content, input.expected)
assert.ok(whole.usage_metadata.input_tokens > 0)

let streamed = ''
for await (const chunk of await chat().stream(messages)) streamed += chunk.content
assert.equal(streamed, input.expected)

const structured = chat({ maxTokens: 60 }).withStructuredOutput(parameters, { method: 'jsonSchema', name: 'paint' })
assert.ok(colour(await structured.invoke(messages)))

const called = await chat({ maxTokens: 80 }).bindTools(tools, { tool_choice: 'required' }).invoke(messages)
assert.equal(called.tool_calls[0].name, 'paint')
assert.ok(colour(called.tool_calls[0].args))

const left = new AbortController()
const long = chat({ maxTokens: 500, modelKwargs: { logit_bias: { 10: 100 } } })
await assert.rejects(async () => {
  for await (const _ of await long.stream(messages, { signal: left.signal })) left.abort()
})
