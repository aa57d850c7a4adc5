import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { readFile } from 'node:fs/promises'
import { kill } from 'node:process'
import { setImmediate as tick } from 'node:timers/promises'
import { answer } from '../../../generation/answer.js'
import { demoModel, type InternVLCheckpoint } from '../../../generation/checkpoint/load.js'
import { embed, loadVisionEncoder } from '../../../generation/embed.js'
import { createEngine } from '../../../generation/engine/create-engine.js'
import { EngineClosedError, EngineCrashedError, QueueFullError } from '../../../generation/engine/engine-errors.js'
import type { EngineRequest, GenerationEngine } from '../../../generation/engine/engine-types.js'
import { InternVLError } from '../../../lib/error.js'
import type { ImageSource } from '../../../processors/image/image.js'
import type { Messages } from '../../../processors/text/messages.js'
import { circle, shapes, squares } from '../../examples/demo-files.js'
import { loadDemo } from './local-engine.js'

const ask = (text: string, ...images: readonly ImageSource[]): Messages => [
  { role: 'user', content: [...images.map((image) => ({ type: 'image', image }) as const), { type: 'text', text }] }
]
const long: EngineRequest = { messages: ask('Describe the image.', shapes), options: { eosTokenIds: [], maxNewTokens: 3000 } }

describe('engine in a process of its own', () => {
  let engine: GenerationEngine
  let internvl: InternVLCheckpoint
  before(async () => {
    const processorModules = [new URL('./allowed-tokens.ts', import.meta.url)]
    engine = await createEngine(demoModel, { maxBatch: 4, maxQueue: 300, restartBackoff: 0, processorModules })
    internvl = await loadDemo()
  })
  after(async () => {
    const handle = engine.submit(long)
    await engine.close()
    assert.equal((await handle.result()).choices[0]!.finishReason, 'aborted')
    internvl.dispose()
  })
  const textOf = async (messages: Messages): Promise<string> => (await answer(internvl, [messages])).texts[0]!

  it('answers questions about images as paths, URLs, data URLs, bytes and blobs', async () => {
    const bytes = await readFile(shapes)
    const sources = [shapes, new URL(`file://${shapes}`), `data:image/png;base64,${bytes.toString('base64')}`]
    const expected = await textOf(ask('Describe the image.', shapes))
    for (const source of [...sources, new Uint8Array(bytes), new Blob([bytes])]) {
      const { choices } = await engine.submit({ messages: ask('Describe the image.', source) }).result()
      assert.equal(choices[0]!.text, expected)
    }
  })

  it('events come in order, and their texts joined are the answer', async () => {
    const types: string[] = []
    const handle = engine.submit({ messages: ask('Describe the image.', shapes), options: { outputLogprobs: true } })
    let text = ''
    for await (const event of handle) {
      if (types.at(-1) !== event.type) types.push(event.type)
      if (event.type === 'token' || event.type === 'choice') text += event.text
    }
    assert.deepEqual(types, ['started', 'token', 'choice', 'finished'])
    const { choices, usage, timings } = await handle.result()
    assert.equal(text, choices[0]!.text)
    assert.equal(usage.prompt.text + usage.prompt.image, usage.prompt.total)
    assert.equal(usage.prompt.image, 16)
    const { queue, prepare, prefill, decode, firstToken, total } = timings
    for (const seconds of [queue, prepare, prefill, decode]) assert.ok(seconds >= 0)
    assert.ok(firstToken <= total)
  })

  it('renders prompts with images, tokenizes, detokenizes, and embeds as `embed` does', async () => {
    const messages = ask('Describe the image.', shapes)
    const { prompts, ids } = await encoded(internvl, messages)
    const { choices } = await engine.submit({ prompt: { text: prompts[0]!, images: [shapes] } }).result()
    assert.equal(choices[0]!.text, await textOf(messages))
    assert.deepEqual(await engine.tokenize({ messages }), { ids: ids[0], imageTokens: 16 })
    assert.equal(await engine.detokenize(ids[0]!), internvl.processor.decode(ids[0]!))
    const vision = await loadVisionEncoder()
    const { values } = await embed(vision, [shapes, circle])
    const { vectors, tiles } = await engine.embed([shapes, circle])
    const expected = await values.array()
    assert.deepEqual(tiles, [1, 1])
    assert.deepEqual(vectors, expected)
    const left = new AbortController()
    const aborted = engine.embed(Array(50).fill(shapes), {}, left.signal)
    left.abort()
    await assert.rejects(aborted, { name: 'AbortError' })
    await assert.rejects(engine.embed([shapes], {}, AbortSignal.abort()), { name: 'AbortError' })
    const long = new AbortController()
    await engine.embed([shapes], {}, long.signal)
    assert.equal(getEventListeners(long.signal, 'abort').length, 0)
    values.dispose()
    vision.dispose()
  })

  it('explain: progress rises from 0 to the total at most four times a second; after an abort there is none', async () => {
    const messages = ask('What color is the shape at the top left?', shapes)
    for (const [method, total] of [
      ['occlusion', 12 * 11],
      ['gradient', 2 * 8],
      ['attention', 1]
    ] as const) {
      // biome-ignore format: one line
      const reports: (readonly number[])[] = []
      const start = performance.now()
      const { parts } = await engine.explain({ messages, method, steps: 8 }, undefined, (...progress) => reports.push(progress))
      const seconds = (performance.now() - start) / 1000
      assert.equal(parts.length, 2)
      const sorted = [...reports].sort(([a], [b]) => a! - b!)
      assert.deepEqual([reports, reports[0], reports.at(-1)], [sorted, [0, total], [total, total]], method)
      assert.ok(reports.length <= 2 + 4 * seconds, `${method}: ${reports.length} in ${seconds} s`) // the first and the last are always sent
    }
    const left = new AbortController()
    const reports: number[] = []
    const onProgress = (done: number): void => {
      reports.push(done)
      left.abort()
    }
    await assert.rejects(engine.explain({ messages }, left.signal, onProgress), { name: 'AbortError' })
    await engine.explain({ messages, cells: 1 })
    assert.deepEqual(reports, [0])
  })

  it('a processor of a module is named with plain data', async () => {
    const { choices } = await engine
      .submit({
        messages: ask('Describe the image.', shapes),
        logitsProcessors: [{ name: 'only', data: ' a black' }],
        options: { maxNewTokens: 5 }
      })
      .result()
    assert.match(choices[0]!.text, /^( a| black)+$/)
  })

  it('input errors are those of the library', async () => {
    const missing = engine.submit({ messages: ask('x', '/no/such.png') })
    await assert.rejects(missing.result(), (error) => error instanceof InternVLError && error.issues[0]._tag === 'NotFound')
    const wrong = engine.submit({ messages: ask('x'), options: { topP: 2 } })
    await assert.rejects(async () => {
      for await (const _ of wrong);
    }, /^RangeError: topP/)
    assert.throws(() => engine.submit({ messages: ask('x'), options: { decode: () => '' } as never }), /decode: a function/)
    await assert.rejects(createEngine('/no/such/folder'), InternVLError)
  })

  it('the event loop of the caller is free while images are encoded, and an abort is answered at once', async () => {
    let turns = 0
    let isRunning = true
    const spin = (async () => {
      for (; isRunning; turns++) await tick()
    })()
    const images = Array.from({ length: 7 }, (_, i) => [shapes, squares, circle][i % 3]!)
    const handle = engine.submit({ messages: ask('Which picture has more shapes?', ...images) })
    const others = Array.from({ length: 5 }, () => engine.submit(long)) // the last of them wait
    let turnsAtStart = 0
    for await (const event of handle) {
      if (event.type === 'started') {
        turnsAtStart = turns
        for (const other of others) other.abort()
        for (const other of others) assert.equal((await other.result()).choices[0]!.finishReason, 'aborted')
      }
      if (event.type === 'token') break
    }
    isRunning = false
    await spin
    // in one process there would be one turn for each of the seven images and each chunk of the prompt
    assert.ok(turns - turnsAtStart > 100, `${turns - turnsAtStart} turns`)
  })

  it('kill -9 fails each of its requests once, and the engine answers again', async () => {
    const running = Array.from({ length: 4 }, () => engine.submit(long))
    const waiting = engine.submit({ messages: ask('Describe the image.', shapes) })
    for await (const event of running[0]!) if (event.type === 'token') break
    const { pid } = engine.stats()
    const alive = running.slice(1) // leaving the iteration has aborted the first
    kill(pid!, 'SIGKILL')
    const failures = await Promise.allSettled(alive.map((handle) => handle.result()))
    for (const failure of failures)
      assert.ok(
        failure.status === 'rejected' && failure.reason instanceof EngineCrashedError && /SIGKILL/.test(failure.reason.message)
      )
    assert.equal((await waiting.result()).choices[0]!.text, await textOf(ask('Describe the image.', shapes)))
    const { state, restarts, pid: next } = engine.stats()
    assert.deepEqual([state, restarts], ['ready', 1])
    assert.notEqual(next, pid)
  })

  it('200 requests, of which a third is aborted, leave no tensors, and whole answers are those given alone', async () => {
    const kinds = [
      ask('Describe the image.', shapes),
      ask('How many circles are there?', squares),
      ask('What color is the background?', circle),
      ask('Who are you?')
    ]
    const options = { maxNewTokens: 12 }
    const { texts: expected } = await answer(internvl, kinds, options)
    const finishReasons = new Map<string, number>()
    const client = async (i: number): Promise<void> => {
      const handle = engine.submit({ messages: kinds[i % kinds.length]!, options })
      let tokens = 0
      if (i % 3 === 0) for await (const { type } of handle) if (type === 'token' && ++tokens > i % 7) break
      const { choices } = await handle.result()
      const { finishReason, text } = choices[0]!
      finishReasons.set(finishReason, (finishReasons.get(finishReason) ?? 0) + 1)
      if (finishReason !== 'aborted') assert.equal(text, expected[i % kinds.length])
    }
    await Promise.all(Array.from({ length: 200 }, (_, i) => client(i)))
    while (engine.stats().running > 0) await engine.detokenize([5]) // the process has not noticed every abort
    const { process: sizes, running, waiting, usedRows } = engine.stats()
    assert.deepEqual([running, waiting, usedRows], [0, 0, 0])
    assert.deepEqual([sizes?.tensors, sizes?.tensorBytes, sizes?.rows], [0, 0, 0])
    assert.ok(sizes!.prefixCache.entries > 0)
    const aborted = finishReasons.get('aborted') ?? 0
    assert.ok(aborted > 40 && aborted <= 67, `${aborted} aborted`)
  })

  it('a full queue refuses, and close drains or aborts', async () => {
    const small = await createEngine(demoModel, { maxBatch: 1, maxQueue: 1 })
    const [running, waiting] = [small.submit(long), small.submit({ messages: ask('Who are you?') })]
    assert.throws(
      () => small.submit(long),
      (error) => error instanceof QueueFullError && error.retryAfterSeconds >= 1
    )
    assert.equal(small.stats().requests.refused, 1)
    const calls = Array.from({ length: 3 }, () => small.detokenize([5]))
    await assert.rejects(calls[2]!, QueueFullError)
    assert.equal((await Promise.all(calls.slice(0, 2))).length, 2)
    const closed = small.close({ drain: true })
    assert.equal(small.stats().state, 'closing')
    assert.throws(() => small.submit(long), EngineClosedError)
    running.abort()
    await closed
    assert.equal((await waiting.result()).choices[0]!.finishReason, 'eos')
    assert.deepEqual([small.stats().state, small.stats().pid], ['closed', undefined])
    await assert.rejects(small.tokenize({ messages: ask('x') }), EngineClosedError)
  })
})

const encoded = async ({ processor }: InternVLCheckpoint, messages: Messages) => {
  const result = await processor.encodeBatch([messages])()
  assert.ok(result._tag === 'Right')
  return result.right
}
