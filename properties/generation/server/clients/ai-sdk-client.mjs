import assert from 'node:assert/strict'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { generateText, jsonSchema, Output, streamText, tool } from 'ai'
import { colour, input, parameters } from './client-input.mjs'

const provider = createOpenAICompatible({
  name: 'internvl',
  baseURL: `${input.url}/v1`,
  apiKey: input.key,
  supportsStructuredOutputs: true,
  includeUsage: true
})
const model = provider(input.model)
const bytes = Buffer.from(input.image.split(',')[1], 'base64')
const messages = [
  {
    role: 'user',
    content: [
      { type: 'file', data: bytes, mediaType: 'image/png' },
      { type: 'text', text: input.question }
    ]
  }
]
const settings = { model, messages, maxRetries: 0, maxOutputTokens: 24 }

const whole = await generateText(settings)
assert.equal(whole.text, input.expected)
assert.ok(whole.usage.inputTokens > 0)

let streamed = ''
const result = streamText(settings)
for await (const text of result.textStream) streamed += text
assert.equal(streamed, input.expected)
assert.ok((await result.usage).outputTokens > 0)

const { output } = await generateText({ ...settings, maxOutputTokens: 60, output: Output.object({ schema: jsonSchema(parameters) }) })
assert.ok(colour(output))

const called = await generateText({
  ...settings,
  maxOutputTokens: 80,
  tools: { paint: tool({ description: 'Paints.', inputSchema: jsonSchema(parameters) }) },
  toolChoice: 'required'
})
assert.equal(called.finishReason, 'tool-calls')
assert.ok(colour(called.toolCalls[0].input))

const left = new AbortController()
const parts = []
const stopped = streamText({ ...settings, maxOutputTokens: 500, abortSignal: left.signal, onError: () => undefined })
for await (const part of stopped.fullStream) {
  parts.push(part.type)
  if (part.type === 'text-delta') left.abort()
}
assert.equal(parts.at(-1), 'abort')
