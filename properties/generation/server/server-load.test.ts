import assert from 'node:assert/strict'
import { kill } from 'node:process'
import { type Answered, ask, imageUrl, question, startServer } from './test-server.js'

const until = async (holds: () => boolean, what: string): Promise<void> => {
  for (let i = 0; i < 600 && !holds(); i++) await new Promise((resolve) => setTimeout(resolve, 50))
  assert.ok(holds(), what)
}

describe('server under load', () => {
  let server: Awaited<ReturnType<typeof startServer>>
  let images: readonly string[]
  before(async () => {
    images = await Promise.all((['circle', 'shapes', 'squares'] as const).map(imageUrl))
    server = await startServer({ maxQueue: 64, prefixCacheBytes: 0, featureCacheBytes: 2 ** 20, logLevel: 'silent' })
  })
  after(() => server.close())

  const idle = () => {
    const { running, waiting } = server.engine.stats()
    return running === 0 && waiting === 0
  }
  const settled = async () => {
    await until(idle, 'all requests have ended')
    await ask(server.url, { messages: [{ role: 'user', content: 'Hi' }], max_tokens: 1 }) // its end reports the sizes
    return server.engine.stats().process!
  }
  const requests = () => {
    const texts = ['What color is the background?', 'How many circles are there?', 'Describe the image.']
    return images.flatMap((image) => texts.map((text) => ({ messages: [question(text, image)], max_tokens: 12 })))
  }
  const textOf = ({ status, body }: Answered): string => {
    assert.equal(status, 200, JSON.stringify(body))
    return body.choices[0].message.content
  }

  it('200 requests of 16 clients, a third broken or left early: whole answers are those given alone, and nothing is left', async () => {
    const all = requests()
    const alone: string[] = []
    for (const request of all) alone.push(textOf(await ask(server.url, request)))
    const before = await settled()
    const fate = (i: number): 'whole' | 'broken' | 'left' => (i % 3 !== 0 ? 'whole' : i % 2 === 0 ? 'broken' : 'left')
    const broken = [
      { messages: [question('Hi', 'data:image/png;base64,AAAAAAAAAAAAAAAAAAAAAAAA')] },
      { messages: [] },
      { messages: [{ role: 'user', content: 'x' }], temperature: 9 }
    ]
    const counts = { whole: 0, broken: 0, left: 0 }
    const one = async (i: number): Promise<void> => {
      const kind = fate(i)
      counts[kind]++
      const request = all[i % all.length]!
      if (kind === 'broken') {
        const { status } = await ask(server.url, broken[i % broken.length]!)
        assert.equal(status, 400)
      } else if (kind === 'left') {
        const left = new AbortController()
        const body = JSON.stringify({ ...request, max_tokens: 200, stream: true })
        const headers = { 'content-type': 'application/json' }
        const sent = fetch(`${server.url}/v1/chat/completions`, { method: 'POST', headers, body, signal: left.signal })
        if (i % 4 === 1) await sent.then((response) => response.body!.getReader().read()) // after the first token
        left.abort()
        await sent.catch(() => undefined)
      } else assert.equal(textOf(await ask(server.url, request)), alone[i % all.length])
    }
    let next = 0
    const client = async (): Promise<void> => {
      while (next < 200) await one(next++)
    }
    await Promise.all(Array.from({ length: 16 }, client))
    assert.ok(counts.whole > 120 && counts.broken > 25 && counts.left > 25)
    const after = await settled()
    assert.equal(after.tensors, before.tensors)
    assert.equal(after.tensorBytes, before.tensorBytes)
    assert.equal(after.rows, 0)
    assert.ok(after.rss < before.rss + 200 * 2 ** 20, `${before.rss} to ${after.rss} bytes`)
  })

  it('a full queue is 429 with Retry-After, and health is answered meanwhile', async () => {
    const { maxBatch, maxQueue } = server.engine.stats()
    const left = new AbortController()
    const request = { messages: [{ role: 'user', content: 'Hi' }], max_tokens: 300, logit_bias: { 10: 100 } }
    const many = Array.from({ length: maxBatch + maxQueue + 8 }, () => ask(server.url, request, { signal: left.signal }))
    const answered = many.map((sent) =>
      sent.then(
        (a) => a,
        () => undefined
      )
    )
    const first = await Promise.race(answered)
    assert.equal(first?.status, 429)
    assert.match(first!.headers.get('retry-after') ?? '', /^[1-9]\d*$/)
    assert.equal(first!.body.error.type, 'rate_limit_error')
    assert.equal((await fetch(`${server.url}/health`)).status, 200)
    left.abort()
    await Promise.all(answered)
    await until(idle, 'the slots are free again')
  })

  it('HTTP waits for no work of the model: an engine that stands still answers health, aborts and new requests', async () => {
    const { pid, maxBatch } = server.engine.stats()
    const request = { messages: [{ role: 'user', content: 'Hi' }], max_tokens: 4 }
    const expected = textOf(await ask(server.url, request))
    const counts = () => {
      const { running, waiting, requests: all } = server.engine.stats()
      return { running, waiting, aborted: all.aborted }
    }
    const before = counts()
    kill(pid!, 'SIGSTOP') // as if the encoding of an image had no end
    try {
      const left = new AbortController()
      const sevenTiles = { messages: [question('Hi', images[1]!)], max_patches: 6, stream: true }
      const aborted = ask(server.url, sevenTiles, { signal: left.signal }).catch((error: Error) => error.name)
      await until(() => counts().running === 1, 'the request is accepted')
      assert.equal((await fetch(`${server.url}/health`)).status, 200)
      left.abort()
      assert.equal(await aborted, 'AbortError')
      await until(() => counts().aborted === before.aborted + 1, 'the abort has reached the engine')
      const sent = Array.from({ length: maxBatch + 2 }, () => ask(server.url, request))
      await until(() => counts().running + counts().waiting > maxBatch + 2, 'new requests are accepted')
      assert.equal((await ask(server.url, { ...request, temperature: -1 })).status, 400)
      const { status, running } = (await (await fetch(`${server.url}/health`)).json()) as Record<string, unknown>
      assert.deepEqual([status, running], ['ready', maxBatch])
      kill(pid!, 'SIGCONT')
      for (const answered of await Promise.all(sent)) assert.equal(textOf(answered), expected)
    } finally {
      kill(pid!, 'SIGCONT')
    }
  })

  it('a body of 20 MB is read in steps: other requests are answered in between', async () => {
    const url = `data:image/png;base64,${Buffer.alloc(15 * 2 ** 20, 7).toString('base64')}`
    let isRead = false
    const large = ask(server.url, { messages: [question('Hi', url)] }).then((answered) => {
      isRead = true
      return answered
    })
    let answers = 0
    for (; !isRead; answers++) assert.equal((await fetch(`${server.url}/health`)).status, 200)
    assert.equal((await large).status, 400)
    assert.ok(answers > 3, `${answers} answers`)
  })

  it('kill -9 of the engine: one clear error a request, and answers again', async () => {
    const request = { messages: [{ role: 'user', content: 'Hi' }], max_tokens: 400, logit_bias: { 10: 100 } }
    const expected = textOf(await ask(server.url, requests()[0]!))
    const sent = Array.from({ length: 4 }, () => ask(server.url, request))
    const body = JSON.stringify({ ...request, stream: true })
    const stream = await fetch(`${server.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body
    })
    await until(() => server.engine.stats().running >= 5, 'all run')
    kill(server.engine.stats().pid!, 'SIGKILL')
    for (const { status, body: failed } of await Promise.all(sent)) {
      assert.equal(status, 503)
      assert.equal(failed.error.code, 'engine_crashed')
      assert.match(failed.error.message, /send the request again/)
    }
    const events = (await stream.text()).trim().split('\n\n')
    assert.match(events.at(-1)!, /"code":"engine_crashed"/)
    assert.equal(events.filter((event) => event.includes('"error"')).length, 1)
    await until(() => server.engine.stats().state === 'ready', 'the engine has started again')
    assert.equal(textOf(await ask(server.url, requests()[0]!)), expected)
    assert.equal(server.engine.stats().restarts, 1)
  })
})
