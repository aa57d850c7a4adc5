import assert from 'node:assert/strict'
import { streamAnswers } from '../../../generation/answer.js'
import { chat } from '../../../generation/chat/chat.js'
import { load } from '../../../generation/checkpoint/load.js'
import { generate } from '../../../generation/decoding/generate.js'
import { embed, loadVisionEncoder } from '../../../generation/embed.js'
import { pipeline } from '../../../generation/pipeline.js'
import { InternVLForConditionalGeneration } from '../../../generation/transformers/conditional-generation.js'
import { InternVLModel, InternVLVisionModel } from '../../../generation/transformers/model-classes.js'
import { InternVLError } from '../../../lib/error.js'
import { tf } from '../../../lib/tf.js'
import type { Messages } from '../../../processors/text/messages.js'

const messages: Messages = [{ role: 'user', content: 'How many circles are there?' }]

const isDisposedError = (error: unknown): boolean =>
  error instanceof InternVLError && error.issues[0]._tag === 'Disposed' && /the model was disposed/i.test(error.message)

describe('after dispose', () => {
  it('every way of answering throws an error that names the cause, and leaves no tensor', async () => {
    const before = tf.memory().numTensors
    const internvl = await load()
    const session = chat(internvl)
    const pipe = await pipeline('image-text-to-text', internvl)
    internvl.dispose()
    internvl.dispose()
    const after = tf.memory().numTensors
    assert.ok(after <= before)
    const inputs = { inputIds: tf.tensor2d([[5, 6]], [1, 2], 'int32') }
    const pixelValues = tf.zeros<tf.Rank.R4>([1, 3, 112, 112])
    await assert.rejects(streamAnswers(internvl, [messages]).next(), isDisposedError)
    await assert.rejects(session.ask('What is here?'), isDisposedError)
    await assert.rejects(chat(internvl).ask('What is here?'), isDisposedError)
    await assert.rejects(pipe(messages), isDisposedError)
    await assert.rejects(generate(internvl.model, inputs).next(), isDisposedError)
    assert.throws(() => internvl.model.imageFeatures(pixelValues), isDisposedError)
    assert.throws(() => internvl.model(inputs), isDisposedError)
    inputs.inputIds.dispose()
    pixelValues.dispose()
    assert.equal(tf.memory().numTensors, after)
  })

  it("so do Transformers' classes and the vision encoder", async () => {
    const before = tf.memory().numTensors
    const inputIds = tf.tensor2d([[5, 6]], [1, 2], 'int32')
    const pixelValues = tf.zeros<tf.Rank.R4>([1, 3, 112, 112])
    const [whole, model, vision] = [
      await InternVLForConditionalGeneration.fromPretrained(),
      await InternVLModel.fromPretrained(),
      await InternVLVisionModel.fromPretrained()
    ]
    const encoder = await loadVisionEncoder()
    for (const owner of [whole, model, vision, encoder]) owner.dispose()
    await assert.rejects(whole.generate({ inputIds }), isDisposedError)
    assert.throws(() => whole.forward({ inputIds }), isDisposedError)
    assert.throws(() => model.forward({ inputIds }), isDisposedError)
    assert.throws(() => vision.forward({ pixelValues }), isDisposedError)
    const raw = { data: new Uint8Array(112 * 112 * 3), width: 112, height: 112, channels: 3 as const }
    await assert.rejects(embed(encoder, [raw]), isDisposedError)
    tf.dispose([inputIds, pixelValues])
    assert.equal(tf.memory().numTensors, before)
  })
})
