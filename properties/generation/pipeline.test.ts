import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { ImageTextToTextPipeline } from '../../generation/index.js'
import { load, type Messages, type PipelineOptions, pipeline, tf } from '../../generation/root.js'

const folder = fileURLToPath(new URL('../../generation/demo/', import.meta.url))
const camel = (name: string): string => name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase())

/** A reference value with keys in camel case and image names as paths. */
const translated = (value: unknown): unknown => {
  if (typeof value === 'string') return value.endsWith('.png') ? folder + value : value
  if (Array.isArray(value)) return value.map(translated)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [camel(key), translated(inner)]))
}

interface Call {
  readonly input: unknown
  readonly options: Readonly<Record<string, unknown>>
  readonly output: unknown
}
const calls = JSON.parse(readFileSync(new URL('../reference/pipeline.json', import.meta.url), 'utf8')) as readonly Call[]

const ask = (text: string, name: string): Messages => [
  { role: 'user', content: [{ type: 'image', path: folder + name }, { type: 'text', text }] } // biome-ignore format: one line
]

describe('pipeline', () => {
  let pipe: ImageTextToTextPipeline
  before(async () => {
    pipe = await pipeline('image-text-to-text')
  })
  after(() => pipe.dispose())

  it("gives Transformers' records, key by key, for chats, prompts, batches and every kind of output", async () => {
    for (const { input, options, output } of calls) {
      const { generateKwargs, ...rest } = translated(options) as PipelineOptions & { generateKwargs?: PipelineOptions }
      const given = await pipe(translated(input) as Messages, { ...rest, ...generateKwargs })
      assert.deepEqual(given, translated(output), JSON.stringify({ input, options }))
    }
  })

  it('any batch size gives each input its own answer, in order', async () => {
    const inputs = [
      ask('Describe the image.', 'shapes.png'),
      [...ask('How many circles are there?', 'circle.png'), { role: 'assistant', content: 'On' }] as Messages,
      ask('What color is the background?', 'circle.png'),
      [{ role: 'user', content: 'Who are you?' }] as Messages
    ]
    const alone = await pipe(inputs, { returnFullText: false })
    for (const batchSize of [2, 4]) assert.deepEqual(await pipe(inputs, { returnFullText: false, batchSize }), alone)
  })

  it('reports progress and streams text', async () => {
    const inputs = [ask('Describe the image.', 'shapes.png'), ask('How many circles are there?', 'circle.png')]
    const reports: number[][] = []
    const texts = ['', '']
    const outputs = await pipe(inputs, {
      returnFullText: false,
      onProgress: (...progress) => reports.push(progress),
      onText: (text, input) => {
        texts[input] += text
      }
    })
    assert.deepEqual(reports, [[1, 2], [2, 2]]) // biome-ignore format: one line
    assert.deepEqual(texts, outputs.map(([output]) => output!.generatedText)) // biome-ignore format: one line
  })

  it('accepts a loaded checkpoint and does not dispose it; refuses invalid input; leaks no tensor', async () => {
    const internvl = await load()
    const before = tf.memory().numTensors
    const pipe = await pipeline('image-text-to-text', internvl)
    await pipe(ask('Describe the image.', 'shapes.png'))
    await assert.rejects(pipe({} as never), /must at least provide either text or images/)
    await assert.rejects(pipe({ images: 'a.png' } as never), /must provide text/)
    await assert.rejects(pipe([]), /empty/)
    await assert.rejects(pipe({ text: ask('?', 'shapes.png'), images: 'a.png' } as never), /into its messages/)
    await assert.rejects(pipe([{ role: 'a king', content: 'x' }]), /role: expected .*, got "a king"/)
    await assert.rejects(pipe('x', { stopSequence: '' }), /^RangeError: stopSequence/)
    await assert.rejects(pipe('x', { batchSize: 0 }), /batchSize/)
    await assert.rejects(pipe('x', { returnTensors: true, returnFullText: true }), /returnFullText/)
    await assert.rejects(pipeline('text-generation' as never), /image-text-to-text/)
    pipe.dispose()
    assert.equal(tf.memory().numTensors, before)
    internvl.dispose()
  })
})
