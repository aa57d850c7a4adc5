import assert from 'node:assert/strict'
import { readdir, readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { tf } from '../../generation/root.js'
import { chatAboutImage } from './library/chat-session.js'
import { fineTuneAFewSteps } from './library/fine-tune-steps.js'
import { lossOfCustomTensors } from './library/forward-and-loss.js'
import { hiddenStateChanges } from './library/hidden-states.js'
import { similarityOfImages } from './library/image-features.js'
import { describeWithoutWord } from './library/logits-processor.js'
import { answerManyClients } from './library/many-clients.js'
import { trainOnOneConversation } from './library/training-step.js'
import { describeImagesInOneBatch } from './transformers/batched-images.js'
import { compareImagesInOneBatch } from './transformers/batched-multi-image.js'
import { answerMixedBatch } from './transformers/interleaved.js'
import { describeWithPipeline } from './transformers/pipeline-inference.js'
import { describeOneImage } from './transformers/single-image.js'
import { answerWithoutImages } from './transformers/text-only.js'
import { describeVideo } from './transformers/video-input.js'

const description =
  'There is a green circle at the top left, a black star at the top right, a blue triangle at the bottom left and a pink triangle at the bottom right.'

describe('examples', () => {
  let before: number
  beforeEach(() => {
    before = tf.memory().numTensors
  })
  afterEach(() => assert.equal(tf.memory().numTensors, before, 'an example disposes every tensor'))

  it('pipeline', async () => assert.equal(await describeWithPipeline(), description))
  it('single image', async () => assert.equal(await describeOneImage(), description))
  it('text only', async () =>
    assert.equal(
      await answerWithoutImages(),
      'I am a very small InternVL. I describe shapes, count them and follow their movements.'
    ))
  it('batched images', async () =>
    assert.deepEqual(await describeImagesInOneBatch(), [
      `user\n\nDescribe the image.\nassistant\n${description}`,
      'user\n\nWhat color is the background?\nassistant\nGray.'
    ]))
  it('batched multi-image', async () =>
    assert.deepEqual(await compareImagesInOneBatch(), [
      'user\n\nHow many circles are there?\nassistant\nOne.',
      'user\n\n\nWhich picture has more shapes?\nassistant\nThe second one.'
    ]))
  it('video', async () => {
    const file = fileURLToPath(new URL('../processors/videos/demo.mp4', import.meta.url))
    for (const video of [undefined, file]) assert.equal(await describeVideo(video), 'The orange circle moves up.')
  })
  it('interleaved image and video', async () =>
    assert.deepEqual(await answerMixedBatch(), [
      'user\n\n\nWhich picture has more shapes?\nassistant\nThe second one.',
      'user\nFrame1: \nFrame2: \nFrame3: \nWhat happens in this video?\nassistant\nThe orange circle moves up.',
      'user\n\nWhat color is the background?\nassistant\nGray.'
    ]))

  it('chat', async () => {
    let streamed = ''
    const answered = await chatAboutImage((text) => {
      streamed += text
    })
    assert.deepEqual([streamed, answered], [description, 'One.'])
  })
  it('an engine for many clients', async () => {
    let streamed = ''
    const result = await answerManyClients((text) => {
      streamed += text
    })
    assert.equal(streamed, description)
    assert.deepEqual(result, { color: 'Gray.', imageTokens: 16, accepted: 3 })
  })
  it('forward and loss', async () => {
    const { shape, loss } = await lossOfCustomTensors()
    assert.deepEqual(shape, [1, 20, 433])
    assert.ok(loss > 1 && loss < 40, `${loss}`)
  })
  it('image features', async () => {
    const { shape, cosine } = await similarityOfImages()
    assert.deepEqual(shape, [2, 16, 160])
    assert.ok(cosine > -1 && cosine < 0.99, `${cosine}`)
  })
  it('a logits processor', async () => {
    const text = await describeWithoutWord(' green')
    assert.ok(!text.includes('green') && text.includes('black star'), text)
  })
  it('hidden states', async () => {
    const changes = await hiddenStateChanges('Who are you?')
    assert.equal(changes.length, 4)
    assert.ok(changes.every((n) => n > 0))
  })
  it('a training step', async () => {
    const losses = await trainOnOneConversation(4)
    assert.ok(losses.every((loss, i) => i === 0 || loss < losses[i - 1]!), losses.join(' ')) // biome-ignore format: one line
  })

  it('fine-tuning', async () => {
    const losses = await fineTuneAFewSteps(4)
    assert.ok(losses.length === 4 && losses[3]! < losses[1]! && losses[2]! < losses[0]!, losses.join(' '))
  })

  it('every example has at most 40 lines', async () => {
    const folder = new URL('.', import.meta.url)
    const files = (await readdir(folder, { recursive: true })).filter((name) => /\.ts$/.test(name) && !/\.test\.ts$/.test(name))
    assert.ok(files.length > 12)
    for (const name of files) {
      const lines = (await readFile(new URL(name, folder), 'utf8')).trimEnd().split('\n').length
      assert.ok(lines <= 40 || name === 'doc-blocks.ts', `${name}: ${lines} lines`)
    }
  })
})
