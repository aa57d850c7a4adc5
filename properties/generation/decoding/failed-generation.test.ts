import assert from 'node:assert/strict'
import { fileURLToPath } from 'node:url'
import { answer } from '../../../generation/answer.js'
import { chat } from '../../../generation/chat/chat.js'
import { type InternVLCheckpoint, load } from '../../../generation/checkpoint/load.js'
import { disposeResult, type GenerateOptions, generateAll } from '../../../generation/decoding/generate.js'
import { tf } from '../../../lib/tf.js'
import type { InternVL } from '../../../models/internvl/internvl.js'
import { localEngine } from '../engine/local-engine.js'

describe('generation that fails or is stopped', () => {
  let internvl: InternVLCheckpoint
  before(async () => {
    internvl = await load()
  })
  after(() => internvl.dispose())

  const prompts = [[5, 6, 7, 8], [9, 10, 11, 12]] // biome-ignore format: one line
  const generateFrom = async (
    rows: readonly (readonly number[])[],
    options: Partial<GenerateOptions>,
    model: InternVL = internvl.model
  ) => {
    const inputIds = tf.tensor2d(rows.flat(), [rows.length, rows[0]!.length], 'int32')
    try {
      const result = await generateAll(model, { inputIds }, { maxNewTokens: 4, ...options })
      disposeResult(result)
      return result
    } finally {
      inputIds.dispose()
    }
  }
  const leavesNoTensor = async (f: () => Promise<unknown>): Promise<void> => {
    const before = tf.memory().numTensors
    await f()
    assert.equal(tf.memory().numTensors, before)
  }

  it('wrong negative prompts are an error and leave no tensor; their number is checked before the prefill', async () => {
    let isPrefilled = false
    const pause = async () => {
      isPrefilled = true
    }
    await leavesNoTensor(async () => {
      const many = { guidanceScale: 2, negativePromptIds: [[1], [2]], pause }
      await assert.rejects(generateFrom([prompts[0]!], many), /negativePromptIds: 2 prompts for 1 rows/)
      assert.ok(!isPrefilled)
      await assert.rejects(generateFrom([prompts[0]!], { guidanceScale: 2, negativePromptIds: [99_999_999] }), RangeError)
    })
  })

  it('an abort during the prefill of the negative prompt gives no token', () =>
    leavesNoTensor(async () => {
      for (const pauses of [1, 2]) {
        const controller = new AbortController()
        let count = 0
        const pause = async () => {
          if (++count === pauses) controller.abort()
        }
        const options = {
          guidanceScale: 2,
          negativePromptIds: [1, 2, 3, 4],
          prefillChunkSize: 2,
          signal: controller.signal,
          pause
        }
        const { sequences, finishReasons } = await generateFrom([prompts[0]!], options)
        assert.deepEqual([sequences, finishReasons], [[[]], ['aborted']])
      }
    }))

  it('an abort during token healing leaves the prompts as they are', () =>
    leavesNoTensor(async () => {
      const signal = AbortSignal.abort()
      const options = { tokenHealing: true, tokenizer: internvl.processor.tokenizer, signal }
      const { sequences, prompts: healed } = await generateFrom([internvl.processor.tokenizer.encode('The gre')], options)
      assert.deepEqual(sequences, [[]])
      assert.ok(healed!.flat().every(Number.isInteger))
    }))

  it('logits of any row that are NaN are an error, by every selection', () =>
    leavesNoTensor(async () => {
      for (const options of [{}, { numBeams: 2 }, { repetitionPenalty: 1.1 }, { numBeams: 2, repetitionPenalty: 1.1 }])
        for (const broken of [0, 1]) {
          let calls = 0
          const decode: InternVL['decode'] = (...args) => {
            const output = internvl.model.decode(...args)
            if (calls++ === 0) return output
            const { shape } = output.logits
            const width = shape[0]! / 2
            const logits = tf.tidy(() => {
              const noise = tf.tensor1d(
                Array.from({ length: shape[0]! }, (_, row) => (Math.floor(row / width) === broken ? Number.NaN : 0))
              )
              return output.logits.add(noise.reshape([-1, ...shape.slice(1).map(() => 1)]))
            })
            output.logits.dispose()
            return { ...output, logits } as typeof output
          }
          await assert.rejects(
            generateFrom(
              prompts,
              options,
              Object.assign((...args: Parameters<InternVL>) => internvl.model(...args), internvl.model, { decode })
            ),
            /NaN or infinite/,
            JSON.stringify(options)
          )
        }
    }))

  it('options that are undefined, and stop strings of the checkpoint, are as if they were in neither or in the call', async () => {
    const circle = {
      type: 'image',
      path: fileURLToPath(new URL('../../../generation/demo/circle.png', import.meta.url))
    } as const
    const messages = [[{ role: 'user', content: [circle, { type: 'text', text: 'Which color is the circle?' }] }]] as const
    const [plain] = (await answer(internvl, messages, { maxNewTokens: 24 })).texts
    const { texts, result } = await answer(internvl, messages, { maxNewTokens: 24, eosTokenIds: undefined, stopStrings: undefined } as never) // biome-ignore format: one line
    assert.deepEqual([texts, result.finishReasons], [[plain], ['eos']])
    const stopStrings = [plain!.slice(2, 4)]
    const stopped = await answer(internvl, messages, { maxNewTokens: 24, stopStrings })
    const ofCheckpoint = { ...internvl, generation: { ...internvl.generation, stopStrings } }
    assert.deepEqual((await answer(ofCheckpoint, messages, { maxNewTokens: 24 })).texts, stopped.texts)
    assert.deepEqual(stopped.texts, [plain!.slice(0, plain!.indexOf(stopStrings[0]!))])
  })

  it('arguments of another type are errors that name them', async () => {
    for (const name of [5, {}])
      await assert.rejects(load(name as never), { name: 'RangeError', message: /load: name: expected a folder/ })
    await assert.rejects(load(undefined, { adapter: 5 as never }), {
      name: 'RangeError',
      message: /load: adapter: expected a folder/
    })
    for (const batch of [5, 'hi', null, undefined])
      await assert.rejects(answer(internvl, batch as never), {
        name: 'InputError',
        message: /batch: expected a list of conversations/
      })
    const plain = await load(undefined, { quantize: null as never })
    plain.dispose()
  })

  it('a stop string may be the text of a special token, in answers, chats and requests', async () => {
    const shapes = {
      type: 'image',
      path: fileURLToPath(new URL('../../../generation/demo/shapes.png', import.meta.url))
    } as const
    const messages = [{ role: 'user', content: [shapes, { type: 'text', text: 'Find the green circle.' }] }] as const
    const { tokenizer } = internvl.processor
    const end = tokenizer.encode('</ref>')
    assert.ok(end.length === 1 && tokenizer.isSpecial(end[0]!))
    const options = { maxNewTokens: 24, stopStrings: ['</ref>'], maxPatches: 1 }
    const { texts, result } = await answer(internvl, [messages], options)
    assert.deepEqual([result.finishReasons, result.sequences[0]!.at(-1)], [['stop'], end[0]])
    const turn = await chat(internvl, options).ask('Find the green circle.', { images: [shapes.path] })
    assert.deepEqual([turn.finishReason, turn.text], ['stop', texts[0]])
    const { run, context } = localEngine(internvl)
    const { choices } = await run({ messages, options })
    context.prefixes.clear()
    assert.deepEqual([choices[0]!.finishReason, choices[0]!.text], ['stop', texts[0]])
  })
})
