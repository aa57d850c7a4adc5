import assert from 'node:assert/strict'
import { demoModel, type InternVLCheckpoint, load } from '../../../../generation/checkpoint/load.js'
import { disposeResult, type GenerateOptions, generate, generateAll } from '../../../../generation/decoding/generate.js'
import { generationConfig } from '../../../../generation/decoding/generation-config.js'
import { paddedPrompts } from '../../../../generation/decoding/prompts/guidance.js'
import { InternVLForConditionalGeneration } from '../../../../generation/transformers/index.js'
import { getOrThrow } from '../../../../lib/error.js'
import { disposeParams } from '../../../../lib/params.js'
import { record } from '../../../../lib/tap/record.js'
import { tap } from '../../../../lib/tap/tap.js'
import { tf } from '../../../../lib/tf.js'
import { parseConfig } from '../../../../models/config/parse-config.js'
import type { InternVL } from '../../../../models/internvl/internvl.js'
import { internVL } from '../../../../models/internvl/internvl.js'
import { assertClose } from '../../../laws/close.js'
import { leavesNoTensor } from '../../../laws/generator.js'
import { attentionReference, wave, waveParams } from '../../../reference/attentions/attentions.js'
import { type GeneratedRun, generatedReference } from '../../../reference/attentions/generated.js'
import { type Packed, unpack } from '../../../reference/layers.js'
import { tinyModel } from '../../tiny.js'

const all = { outputAttentions: true, outputHiddenStates: true, outputScores: true, outputLogits: true }

const run = async (model: InternVL, prompts: readonly (readonly number[])[], options: GenerateOptions) => {
  const inputs = paddedPrompts(prompts)
  try {
    return await generateAll(model, inputs, options)
  } finally {
    tf.dispose([inputs.inputIds, inputs.attentionMask])
  }
}

/** Rows of the result whose sequence or beam goes on at each token. */
const runningRows = (
  rows: number,
  { tokens, options: { eos_token_id: ends = [] } }: GeneratedRun,
  step: number
): readonly number[] => {
  const finished = tokens.map((ids) => ids.slice(0, step).some((id) => [ends].flat().includes(id)))
  return Array.from({ length: rows }, (_, row) => row).filter((row) => !finished[Math.floor((row * tokens.length) / rows)])
}

/** Last query of weights `[N, H, Lq, Lk]`, over as many of the last keys as the reference has; the keys before have no weight. */
const lastQuery = (weights: tf.Tensor4D, keys: number): tf.Tensor3D => {
  const [N, H, Lq, Lk] = weights.shape
  const row = weights.slice([0, 0, Lq - 1, 0], [N, H, 1, Lk]).reshape<tf.Tensor3D>([N, H, Lk])
  assert.equal(
    row
      .slice([0, 0, 0], [N, H, Lk - keys])
      .abs()
      .sum()
      .dataSync()[0]! < 1e-6,
    true
  )
  return row.slice([0, 0, Lk - keys], [N, H, keys])
}

const assertRows = (actual: tf.Tensor, expected: Packed, rows: readonly number[], message: string): void => {
  const index = tf.tensor1d([...rows], 'int32')
  const reference = unpack(expected)
  assert.deepEqual(actual.shape, reference.shape, message)
  if (rows.length > 0) assertClose(actual.gather(index), reference.gather(index), 1e-5, message)
}

describe('outputs of each step of generate', () => {
  for (const [name, { config, runs }] of Object.entries(generatedReference.decoders)) {
    for (const [kind, reference] of Object.entries(runs))
      it(`${name}, ${kind}: those of Transformers`, async () => {
        const before = tf.memory().numTensors
        const module = internVL(getOrThrow(parseConfig(config)))
        const params = waveParams(module)
        const o = { maxNewTokens: 3, ...getOrThrow(generationConfig(reference.options)), ...all }
        const result = await run(module.apply(params), generatedReference.prompts, o)
        tf.tidy(() => {
          const { attentions, hiddenStates, stepLogits, stepScores, beamIndices } = result
          for (const [row, ids] of result.sequences.entries()) {
            assert.deepEqual(ids, reference.tokens[row]!.slice(0, ids.length))
            const beams = beamIndices?.[row] ?? ids.map(() => row)
            if (beamIndices)
              assert.deepEqual(
                beams,
                reference.beamIndices![row]!.filter((beam) => beam >= 0)
              )
            for (const [step, beam] of beams.entries())
              for (const [
                packed,
                values
              ] of [[reference.logits[step]!, stepLogits![row]![step]!], [reference.scores[step]!, stepScores![row]![step]!]] as const) // biome-ignore format: one line
                assertClose(tf.tensor1d(values), unpack<tf.Tensor2D>(packed).gather(beam), 1e-5, `row ${row}, token ${step}`)
          }
          const longest = Math.max(...result.sequences.map(({ length }) => length))
          assert.ok(attentions!.length >= longest && attentions!.length === hiddenStates!.length)
          for (const [step, weights] of attentions!.entries()) {
            const running = runningRows(weights[0]!.shape[0], reference, step)
            for (const [layer, w] of weights.entries()) {
              const [expected, message] = [reference.attentions[step]![layer]!, `token ${step}, layer ${layer}`]
              assert.deepEqual(w.shape.slice(0, 3), reference.shapes[step]![layer]!.slice(0, 3), message)
              assertRows(lastQuery(w, expected.shape[2]!), expected, running, message)
            }
            for (const [layer, states] of hiddenStates![step]!.entries()) {
              const [N, L, D] = states.shape
              const lastPosition = states.slice([0, L - 1, 0], [N, 1, D]).reshape([N, D])
              assert.deepEqual(states.shape, reference.stateShapes[step]![layer])
              assertRows(lastPosition, reference.states[step]![layer]!, running, `token ${step}, states ${layer}`)
            }
          }
        })
        disposeResult(result)
        disposeParams(params)
        assert.equal(tf.memory().numTensors, before)
      })
  }

  describe('of the demo model', () => {
    let internvl: InternVLCheckpoint
    before(async () => {
      internvl = await load(demoModel)
    })
    after(() => internvl.dispose())
    const withImage = <A>(f: (pixelValues: tf.Tensor4D) => Promise<A>) => {
      const pixelValues = wave('pixels', [1, 3, 112, 112]) as tf.Tensor4D
      return f(pixelValues).finally(() => pixelValues.dispose())
    }

    for (const expected of attentionReference.generated)
      it(`an image and padding, end tokens [${expected.eos}]: those of Transformers; zeros for a row that has finished`, () =>
        withImage(async (pixelValues) => {
          const inputs = { ...paddedPrompts(attentionReference.prompts), pixelValues }
          const { attentions, hiddenStates, sequences } = await generateAll(internvl.model, inputs, {
            ...internvl.generation,
            eosTokenIds: expected.eos,
            maxNewTokens: 3,
            outputAttentions: true,
            outputHiddenStates: true
          })
          tf.tidy(() => {
            for (const [step, weights] of attentions!.entries()) {
              assert.deepEqual(weights.map(({ shape }) => shape), expected.shapes[step]) // biome-ignore format: one line
              const running = [0, 1].filter((row) => step < sequences[row]!.length)
              for (const [i, layer] of [0, 3].entries()) {
                const packed = expected.lastRows[step]![i]!
                assertRows(lastQuery(weights[layer]!, packed.shape[2]!), packed, running, `token ${step}, layer ${layer}`)
              }
              for (const row of [0, 1].filter((row) => !running.includes(row)))
                assert.equal(weights[0]!.gather([row]).abs().max().dataSync()[0], 0)
              for (const [i, layer] of [0, 2, 4].entries()) {
                const states = hiddenStates![step]![layer]!
                const last = states.slice([0, states.shape[1] - 1, 0], [2, 1, 6]).reshape([2, 6])
                assertRows(last, expected.lastStates[step]![i]!, running, `token ${step}, states ${layer}`)
              }
            }
          })
          disposeResult({ attentions, hiddenStates })
          tf.dispose([inputs.inputIds, inputs.attentionMask])
        }))

    it('taps run in every step of a loaded checkpoint; its other bindings stay as they are', async () => {
      const prompts = [[3, 4, 50, 60]]
      const plain = await run(internvl.model, prompts, { maxNewTokens: 3, outputHiddenStates: true })
      const recorder = record(['language_model.layers.0'])
      const tapped = tap(internvl, recorder)
      const same = await run(tapped.model, prompts, { maxNewTokens: 3 })
      assert.deepEqual(same.sequences, plain.sequences)
      const calls = recorder.outputs['model.language_model.layers.0']!
      assert.deepEqual(calls.map(({ shape }) => shape), [[1, 4, 160], [1, 1, 160], [1, 1, 160]]) // biome-ignore format: one line
      for (const [step, state] of calls.entries()) assertClose(state, plain.hiddenStates![step]![1]!, 1e-5, `token ${step}`)
      const silent = tap(internvl, { 'language_model.norm': (y) => y.mul(-1) })
      assert.notDeepEqual((await run(silent.model, prompts, { maxNewTokens: 3 })).sequences, plain.sequences)
      assert.deepEqual((await run(internvl.model, prompts, { maxNewTokens: 3 })).sequences, plain.sequences)
      recorder.dispose()
      disposeResult(plain)
    })

    it('every binding of a disposed checkpoint throws', async () => {
      const one = await load(demoModel)
      const tapped = tap(one, { 'language_model.norm': (y) => y })
      tapped.dispose()
      for (const { model } of [one, tapped]) assert.throws(() => model.embed({ inputIds: tf.tensor2d([[1]]) }), /disposed/)
    })

    it('the Transformers class returns them with returnDictInGenerate, and in its forward', () =>
      withImage(async () => {
        const model = await InternVLForConditionalGeneration.fromPretrained(demoModel)
        const { inputIds } = paddedPrompts([[3, 4, 50, 60]])
        const result = await model.generate({ inputIds, ...all, maxNewTokens: 2, returnDictInGenerate: true })
        const ids = await model.generate({ inputIds, ...all, maxNewTokens: 2 })
        assert.deepEqual(result.sequences, ids)
        const { attentions } = model.forward({ inputIds, outputAttentions: [-1] })
        assertClose(attentions![0]!, result.attentions![0]!.at(-1)!, 1e-5, 'forward')
      }))
  })

  it('candidates of assisted decoding give the outputs of unassisted decoding, token by token', async () => {
    const model = tinyModel()
    const prompt = [2, 3, 4, 2, 3, 4, 2, 3]
    const o = { maxNewTokens: 8, ...all }
    const [plain, assisted] = [await run(model, [prompt], o), await run(model, [prompt], { ...o, promptLookupNumTokens: 4 })]
    assert.deepEqual(assisted.sequences, plain.sequences)
    for (const [name, expected] of [['attentions', plain.attentions!], ['hiddenStates', plain.hiddenStates!]] as const) // biome-ignore format: one line
      for (const [step, layers] of expected.entries())
        for (const [layer, values] of layers.entries())
          assertClose(assisted[name]![step]![layer]!, values, 1e-5, `${name} ${step}`)
    for (const result of [plain, assisted]) disposeResult(result)
  })

  it('chosen layers alone, also in chunks and after a cache, whose tokens are keys but no queries', async () => {
    const model = tinyModel()
    const o = { maxNewTokens: 2, imageTokenId: 1 }
    const whole = await run(model, [[2, 3, 4, 5]], { ...o, outputAttentions: [-1], signal: new AbortController().signal, prefillChunkSize: 1, returnCache: true }) // biome-ignore format: one line
    assert.deepEqual(whole.attentions!.map((step) => step.map(({ shape }) => shape)), [[[1, 4, 4, 4]], [[1, 4, 1, 5]]]) // biome-ignore format: one line
    const next = await run(model, [[2, 3, 4, 5, 6]], { ...o, outputAttentions: [1], cache: whole.cache })
    assert.deepEqual(next.attentions!.map((step) => step.map(({ shape }) => shape)), [[[1, 4, 1, 5]], [[1, 4, 1, 6]]]) // biome-ignore format: one line
    for (const result of [whole, next]) disposeResult(result)
  })

  it('leaving early disposes every tensor; wrong values are named', async () => {
    const model = tinyModel()
    const inputs = paddedPrompts([[2, 3, 4]])
    for (const mode of [{}, { numBeams: 2 }, { promptLookupNumTokens: 2 }])
      await leavesNoTensor(() => generate(model, inputs, { maxNewTokens: 4, ...all, ...mode }), disposeResult)
    assert.throws(
      () => generate(model, inputs, { outputAttentions: 'all' as never }),
      /outputAttentions: expected true, false, or a list of layers/
    )
    assert.throws(() => generate(model, inputs, { outputHiddenStates: 1 as never }), /outputHiddenStates: expected true or false/)
    await assert.rejects(
      generateAll(model, inputs, { outputAttentions: [2] }),
      /outputAttentions: expected layers from -2 to 1, got 2/
    )
    tf.dispose([inputs.inputIds, inputs.attentionMask])
  })
})
