import assert from 'node:assert/strict'
import { generateObject, generateText, jsonSchema, streamText, tool } from 'ai'
import { createEngine, languageModel } from '../../../../generation/ai-sdk/index.ts'
import { colour, input, parameters } from './client-input.mjs'

const engine = await createEngine(undefined, { defaults: { chatTemplate: input.chatTemplate } })
const model = languageModel(engine, 'demo')
const data = Buffer.from(input.image.split(',')[1], 'base64')
const messages = [
  {
    role: 'user',
    content: [
      { type: 'file', data, mediaType: 'image/png' },
      { type: 'text', text: input.question }
    ]
  }
]
const settings = { model, messages, maxRetries: 0, maxOutputTokens: 24 }

const whole = await generateText(settings)
assert.equal(whole.text, input.expected)
assert.equal(whole.finishReason, 'stop')
assert.ok(whole.usage.inputTokens > whole.usage.outputTokens)

let streamed = ''
const stream = streamText(settings)
for await (const text of stream.textStream) streamed += text
assert.equal(streamed, input.expected)
assert.equal(await stream.finishReason, 'stop')

const { object } = await generateObject({ ...settings, maxOutputTokens: 60, schema: jsonSchema(parameters) })
assert.ok(colour(object))

const paint = tool({ description: 'Paints.', inputSchema: jsonSchema(parameters) })
const withTools = { ...settings, maxOutputTokens: 80, tools: { paint }, toolChoice: 'required' }
const called = await generateText(withTools)
assert.equal(called.finishReason, 'tool-calls')
assert.ok(colour(called.toolCalls[0].input))
const types = []
for await (const part of streamText(withTools).fullStream) types.push(part.type)
assert.ok(types.includes('tool-call'))
const result = { type: 'tool-result', toolCallId: called.toolCalls[0].toolCallId, toolName: 'paint', output: { type: 'text', value: 'done' } }
const next = await generateText({ ...settings, tools: { paint }, messages: [...messages, ...called.response.messages, { role: 'tool', content: [result] }] })
assert.equal(typeof next.text, 'string')

const left = new AbortController()
const parts = []
for await (const part of streamText({ ...settings, maxOutputTokens: 500, abortSignal: left.signal, onError: () => undefined }).fullStream) {
  parts.push(part.type)
  if (part.type === 'text-delta') left.abort()
}
assert.equal(parts.at(-1), 'abort')
for (let i = 0; i < 200 && engine.stats().running > 0; i++) await new Promise((resolve) => setTimeout(resolve, 20))
assert.equal(engine.stats().running, 0)
await assert.rejects(generateText({ ...settings, messages: [{ role: 'user', content: [{ type: 'file', data: Buffer.from('RIFF____WAVEfmt '), mediaType: 'audio/wav' }] }] }), /audio\/wav/)
await engine.close()
