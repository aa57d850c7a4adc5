import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { installClients, modernNode } from './modern-node.js'
import { ask, imageUrl, question, startServer, toolTemplate } from './test-server.js'

const run = promisify(execFile)
const KEY = 'a-key-of-the-tests'

describe('server: clients', () => {
  let server: Awaited<ReturnType<typeof startServer>>
  let environment: NodeJS.ProcessEnv
  const text = 'What color is the background?'
  before(async () => {
    server = await startServer({ apiKeys: [KEY], defaults: { chatTemplate: toolTemplate }, logLevel: 'silent' })
    const image = await imageUrl('circle')
    const headers = { authorization: `Bearer ${KEY}` }
    const { body } = await ask(server.url, { messages: [question(text, image)], max_tokens: 24 }, { headers })
    const expected = body.choices[0].message.content
    const input = { url: server.url, key: KEY, model: server.modelName, image, question: text, expected }
    environment = {
      ...process.env,
      CLIENT_INPUT: JSON.stringify(input),
      AI_SDK_LOG_WARNINGS: 'false',
      LANGCHAIN_TRACING_V2: 'false'
    }
  })
  afterEach(async () => {
    for (let i = 0; i < 200 && server.engine.stats().running > 0; i++) await new Promise((resolve) => setTimeout(resolve, 20))
    assert.equal(server.engine.stats().running, 0, 'a client that left has freed its slot')
  })
  after(() => server.close())

  const node = modernNode()
  const reason = node ? '' : ` (skipped: the clients and their Node 22 are not installed; \`${installClients}\`)`
  for (const [name, file] of [
    ['openai', 'openai-client.mjs'],
    ['@ai-sdk/openai-compatible', 'ai-sdk-client.mjs'],
    ['@langchain/openai', 'langchain-client.mjs']
  ] as const)
    it(`${name}: image, stream, schema, tools, abort${reason}`, async function () {
      this.timeout(180_000) // a few seconds on a free machine
      if (!node) return this.skip()
      await run(node, [fileURLToPath(new URL(`./clients/${file}`, import.meta.url))], { env: environment, timeout: 170_000 })
    })

  it('curl: image, stream, n, errors', async function () {
    const curl = async (...args: readonly string[]) => (await run('curl', ['-sS', '-N', ...args])).stdout
    if ((await run('curl', ['--version']).catch(() => undefined)) === undefined) return this.skip()
    const { image, expected } = JSON.parse(environment.CLIENT_INPUT!)
    const base = [
      '-H',
      'Content-Type: application/json',
      '-H',
      `Authorization: Bearer ${KEY}`,
      `${server.url}/v1/chat/completions`
    ]
    const body = (fields: object) => ['-d', JSON.stringify({ messages: [question(text, image)], max_tokens: 24, ...fields })]
    const { choices } = JSON.parse(await curl(...base, ...body({ n: 2, temperature: 0 })))
    assert.deepEqual(
      choices.map((choice: { message: { content: string } }) => choice.message.content),
      [expected, expected]
    )
    const stream = await curl(...base, ...body({ stream: true }))
    const chunks = stream
      .trim()
      .split('\n\n')
      .map((line) => line.replace(/^data: /, ''))
    assert.equal(chunks.pop(), '[DONE]')
    assert.equal(chunks.map((chunk) => JSON.parse(chunk).choices[0].delta.content ?? '').join(''), expected)
    assert.equal(JSON.parse(await curl(...base, '-d', '{')).error.code, 'invalid_json')
    const left = run('curl', [
      '-sS',
      '-N',
      '--max-time',
      '1',
      ...base,
      ...body({ stream: true, max_tokens: 1000, logit_bias: { 10: 100 } })
    ])
    await left.catch(() => undefined)
  })
})
