import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { featureCache } from '../../../generation/index.js'
import { chat, demoModel, type InternVLCheckpoint, load, restoreChat, streamAnswers, tf } from '../../../generation/root.js'
import type { InternVL } from '../../../models/internvl/internvl.js'

const shown = (name: string): string => fileURLToPath(new URL(`../../../generation/demo/${name}`, import.meta.url))

/** The checkpoint with a model that counts tiles through the tower and tokens through the decoder. */
const counted = (internvl: InternVLCheckpoint) => {
  const counts = { tiles: 0, tokens: 0 }
  const { model } = internvl
  const spy: InternVL = Object.assign(((...args) => model(...args)) as InternVL, {
    imageFeatures: (pixels: tf.Tensor4D) => {
      counts.tiles += pixels.shape[0]
      return model.imageFeatures(pixels)
    },
    embed: model.embed,
    decode: (...[embeds, options]: Parameters<InternVL['decode']>) => {
      counts.tokens += embeds.shape[1]
      return model.decode(embeds, options)
    }
  })
  return { internvl: { ...internvl, model: spy, features: featureCache(spy) }, counts }
}

const questions = [
  'Describe the image.',
  'How many circles are there?',
  'What color is the background?',
  'What is at the top right?',
  'What color is the shape at the bottom left?'
]

describe('chat', () => {
  let real: InternVLCheckpoint
  before(async () => {
    real = await load(demoModel)
  })
  after(() => real.dispose())

  it('ten turns about one image encode the image once and compute only their new tokens', async () => {
    const { internvl, counts } = counted(real)
    const session = chat(internvl)
    let before = 0
    for (let turn = 0; turn < 10; turn++) {
      counts.tokens = 0
      const asked = await session.ask(questions[turn % 5]!, turn === 0 ? { images: [shown('shapes.png')] } : {})
      // the cache has all tokens but the end token of the previous answer, which was not read
      assert.equal(asked.reusedTokens, before)
      assert.equal(counts.tokens, asked.promptTokens - before + asked.newTokens - 1)
      before = asked.promptTokens + asked.newTokens - 1
    }
    assert.equal(counts.tiles, 1)
    assert.equal(session.history.length, 20)
    session.dispose()
  })

  it('answers like a model without a cache that reads the whole conversation', async () => {
    const session = chat(real)
    for (const [i, question] of questions.entries()) {
      const images = i === 0 ? [shown('shapes.png')] : i === 2 ? [shown('circle.png'), shown('shapes.png')] : []
      const before = session.history
      const { text } = await session.ask(question, { images })
      const all = [...before, session.history.at(-2)!]
      const stream = streamAnswers(real, [all])
      let next = await stream.next()
      while (!next.done) next = await stream.next()
      assert.equal(text, next.value.texts[0])
    }
    session.dispose()
  })

  it('the streamed pieces joined are the answer in the history', async () => {
    const session = chat(real, { system: 'Be brief.' })
    let streamed = ''
    for await (const text of session.send('Describe the image.', { images: [shown('shapes.png')] })) streamed += text
    assert.deepEqual(
      session.history.map(({ role }) => role),
      ['system', 'user', 'assistant']
    )
    assert.equal(session.history[2]!.content, streamed)
    session.reset()
    assert.deepEqual(session.history, [{ role: 'system', content: 'Be brief.' }])
    session.dispose()
  })

  it('sessions of one model share image features; the feature cache is bounded and evicts the least recently used', async () => {
    const { internvl, counts } = counted(real)
    const features = featureCache(internvl.model, { maxEntries: 1 })
    const ask = (image: string) => chat(internvl, { features, maxNewTokens: 1 }).ask('What is it?', { images: [shown(image)] })
    for (const image of ['shapes.png', 'shapes.png', 'circle.png', 'circle.png', 'shapes.png']) await ask(image)
    assert.equal(counts.tiles, 3)
    assert.deepEqual({ ...features.counts(), bytes: 0 }, { encoded: 3, reused: 2, entries: 1, bytes: 0 })
    for (let i = 0; i < 2; i++) await chat(internvl, { maxNewTokens: 1 }).ask('What is it?', { images: [shown('circle.png')] })
    assert.equal(counts.tiles, 4)
  })

  it('a stopped answer stays in the history as far as it was generated, and the next turn is right', async () => {
    for (const stop of ['signal', 'break'] as const) {
      const session = chat(real)
      const aborter = new AbortController()
      let streamed = ''
      for await (const text of session.send('Describe the image.', { images: [shown('shapes.png')], signal: aborter.signal })) {
        streamed += text
        if (streamed.length < 12) continue
        if (stop === 'break') break
        aborter.abort()
      }
      assert.equal(session.history[1]!.content, streamed)
      assert.ok(streamed.length >= 12 && streamed.length < 40, streamed)
      await session.ask('How many circles are there?')
      assert.equal(session.history.length, 4)
      session.dispose()
    }
  })

  it('the signal of a session stops each of its answers', async () => {
    const aborter = new AbortController()
    const session = chat(real, { signal: aborter.signal })
    let streamed = ''
    for await (const text of session.send('Describe the image.', { images: [shown('shapes.png')] })) {
      streamed += text
      if (streamed.length >= 12) aborter.abort()
    }
    assert.ok(streamed.length >= 12 && streamed.length < 40, streamed)
    session.dispose()
  })

  it('a message that fails leaves the history unchanged', async () => {
    const session = chat(real)
    await session.ask('Who are you?')
    const { history } = session
    await assert.rejects(session.ask('What is this?', { images: ['nowhere.png'] }), /nowhere\.png: no such image/)
    await assert.rejects(session.ask('Who?', { topP: 2 }), /topP/)
    await assert.rejects(session.ask('Who?', { stopStrings: [''] }), /stopStrings/)
    assert.equal(session.history, history)
    const first = session.send('Who are you?')
    await first.next()
    await assert.rejects(session.ask('And?'), /previous answer is not finished/)
    await first.return(undefined as never)
    session.dispose()
    await assert.rejects(session.ask('And?'), /disposed/)
  })

  it('a saved and restored history equals the original, by path and by content', async () => {
    const session = chat(real, { system: 'Be brief.' })
    await session.ask('Describe the image.', { images: [shown('shapes.png')] })
    const folder = await mkdtemp(join(tmpdir(), 'internvl-'))
    const raw = { data: new Uint8Array(112 * 112 * 3).fill(200), width: 112, height: 112, channels: 3 as const }
    await session.ask('What is it?', { images: [raw], videos: [shown('video')] })
    const { text } = await session.ask('How many circles are there?')
    for (const images of ['path', 'content'] as const) {
      const saved = await session.save({ images })
      const again = restoreChat(real, saved)
      assert.equal(await again.save({ images }), saved)
      const before = restoreChat(real, JSON.stringify({ messages: JSON.parse(saved).messages.slice(0, -2) }))
      assert.equal((await before.ask('How many circles are there?')).text, text)
      assert.equal(saved.includes('shapes.png'), images === 'path')
      again.dispose()
      before.dispose()
    }
    session.dispose()
    await rm(folder, { recursive: true })
    assert.throws(() => restoreChat(real, '{'), /not a saved conversation/)
    assert.throws(() => restoreChat(real, '{"messages":[{"role":"a king","content":"x"}]}'), /role: expected .*, got "a king"/)
  })

  it('an image file with new content is encoded again', async () => {
    const { internvl, counts } = counted(real)
    const folder = await mkdtemp(join(tmpdir(), 'internvl-'))
    const file = join(folder, 'a.png')
    const { readFile } = await import('node:fs/promises')
    for (const name of ['shapes.png', 'circle.png', 'shapes.png']) {
      await writeFile(file, await readFile(shown(name)))
      const session = chat(internvl, { maxNewTokens: 1 })
      await session.ask('What is it?', { images: [file] })
      session.dispose()
    }
    assert.equal(counts.tiles, 2)
    await rm(folder, { recursive: true })
  })

  it('leaks no tensor: complete, stopped, failed, disposed during an answer', async () => {
    const numTensors = () => tf.memory().numTensors
    const before = numTensors()
    const session = chat(real)
    await session.ask('Describe the image.', { images: [shown('shapes.png')] })
    await session.ask('How many circles are there?', { numBeams: 2 })
    await session.ask('What is it?', { topP: 3 }).catch(() => {})
    for await (const _ of session.send('What is at the top right?', { images: [shown('circle.png')] })) break
    assert.ok(numTensors() > before)
    for await (const _ of session.send('What is at the top right?')) session.dispose()
    assert.equal(numTensors(), before)
  })
})
