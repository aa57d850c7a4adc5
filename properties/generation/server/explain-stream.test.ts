import assert from 'node:assert/strict'
import { kill } from 'node:process'
import { setTimeout as delay } from 'node:timers/promises'
import { imageUrl, post, question, readStream, startServer } from './test-server.js'

const path = '/v1/explain'

describe('server: POST /v1/explain with stream: true', () => {
  let server: Awaited<ReturnType<typeof startServer>>
  let messages: readonly object[] = []
  before(async () => {
    messages = [question('What color is the shape at the top left?', await imageUrl('shapes'))]
    server = await startServer({ restartBackoff: 0 })
  })
  after(() => server.close())

  /** The response of a stream that began, whose map needs some hundred forwards, and the rest of its text after the first event. */
  const longStream = async (signal?: AbortSignal) => {
    const body = JSON.stringify({ messages, cells: 32, stream: true })
    const headers = { 'content-type': 'application/json' }
    const response = await fetch(`${server.url}${path}`, { method: 'POST', headers, body, ...(signal ? { signal } : {}) })
    assert.equal(response.status, 200)
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader()
    assert.match((await reader.read()).value ?? '', /^data: \{"object":"explanation.progress","done":0,"total":\d{3}\}\n\n/)
    const rest = async (): Promise<string> => {
      let text = ''
      for (let next = await reader.read(); !next.done; next = await reader.read()) text += next.value
      return text
    }
    return { rest }
  }

  it('progress rises to the total, and the last event is the answer without stream', async () => {
    for (const [method, total] of [
      ['occlusion', 4 * 4],
      ['gradient', 2 * 6],
      ['attention', 1]
    ] as const) {
      // biome-ignore format: one line
      const request = { messages, method, cells: 4, steps: 6 }
      const events = await readStream(server.url, request, { path })
      const progress = events.slice(0, -1)
      assert.ok(progress.every((event) => event.object === 'explanation.progress' && event.total === total))
      const done = progress.map((event) => event.done)
      assert.deepEqual([done, done[0], done.at(-1)], [done.toSorted((a, b) => a - b), 0, total], method)
      const { body } = await post(server.url, path, { ...request, stream: false })
      assert.deepEqual(events.at(-1), body)
    }
  })

  it('wrong input is answered with 400 before the stream, and names the field', async () => {
    const refused = [
      [{ messages, stream: 'yes' }, 'stream'],
      [{ messages, method: 'lime' }, 'method'],
      [{ messages, token: 'zebra' }, 'token'],
      [{ messages, image: 1 }, 'image'],
      [{ messages: [question('Hi', 'data:image/png;base64,AAAA')] }, 'messages[0].content[0].image_url.url']
    ] as const
    for (const [request, param] of refused) {
      const { status, headers, body } = await post(server.url, path, { stream: true, ...request })
      assert.deepEqual([status, body.error.param], [400, param], JSON.stringify(body))
      assert.match(headers.get('content-type') ?? '', /^application\/json/)
    }
  })

  it('a client that leaves ends the work; the log says so', async () => {
    const left = new AbortController()
    const { rest } = await longStream(left.signal)
    left.abort()
    await assert.rejects(rest(), { name: 'AbortError' })
    while (!server.log.some((line) => line.includes('"path":"/v1/explain","status":499'))) await delay(20)
    assert.ok(!server.log.some((line) => /"level":50/.test(line)), 'no error is logged')
  })

  it('a map, or embeddings, that take longer than the server allows end with an error that names the limit', async () => {
    const limited = await startServer({ limits: { maxSeconds: 0.2, maxMedia: 150, maxTiles: 10_000 } })
    try {
      const input = Array(150).fill(await imageUrl('shapes'))
      const embedding = await post(limited.url, '/v1/embeddings', { input })
      assert.deepEqual([embedding.status, embedding.body.error.code], [504, 'time_limit'])
      const request = { messages, cells: 32 }
      const { status, body } = await post(limited.url, path, request)
      assert.deepEqual([status, body.error.code], [504, 'time_limit'])
      assert.match(body.error.message, /longer than 0\.2 s/)
      const headers = { 'content-type': 'application/json' }
      const streamed = await fetch(`${limited.url}${path}`, {
        method: 'POST',
        headers,
        body: JSON.stringify({ ...request, stream: true })
      })
      assert.match(await streamed.text(), /"code":"time_limit"\}\}\n\n$/)
    } finally {
      await limited.close()
    }
  })

  it('an error after the beginning of the stream is its last event', async () => {
    const { rest } = await longStream()
    kill(server.engine.stats().pid!, 'SIGKILL')
    const events = (await rest()).split('\n\n').filter((event) => event.startsWith('data: '))
    assert.equal(JSON.parse(events.at(-1)!.slice(6)).error.code, 'engine_crashed')
    const { status } = await post(server.url, path, { messages, method: 'attention' })
    assert.equal(status, 200)
  })
})
