import assert from 'node:assert/strict'
import { mkdtemp, readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { type InternVLCheckpoint, load } from '../../../generation/checkpoint/load.js'
import { program } from '../../../generation/cli/program.js'
import { disposeResult, generateAll } from '../../../generation/decoding/generate.js'
import { attentionMaps } from '../../../generation/explain/attention-maps.js'
import { explain } from '../../../generation/explain/explain.js'
import { answerTokens, answerWords, type ExplainedInput, explainedInput } from '../../../generation/explain/explained-input.js'
import { gradientMap, imageTiles, medianColours } from '../../../generation/explain/gradient-maps.js'
import { heatPng, heatStrip } from '../../../generation/explain/heat-image.js'
import { mapOverImage, normalizedMap } from '../../../generation/explain/heat-map.js'
import { featuresWithout, gridRegions, regionMasks, tileRegions } from '../../../generation/explain/occlusion-maps.js'
import { partScores } from '../../../generation/explain/scores.js'
import { tf } from '../../../lib/tf.js'
import { readImage } from '../../../processors/image/image.js'
import type { Messages } from '../../../processors/text/messages.js'
import { assertClose } from '../../laws/close.js'
import { colourScene, truthOf } from './truth.js'

const shapes = fileURLToPath(new URL('../../../generation/demo/shapes.png', import.meta.url))
const ask = (text: string): Messages => [
  {
    role: 'user',
    content: [
      { type: 'image', path: shapes },
      { type: 'text', text }
    ]
  }
]
const question = ask('What color is the shape at the top left?')

describe('explain', () => {
  let internvl: InternVLCheckpoint
  let tensors = 0
  before(async () => {
    internvl = await load()
    tensors = tf.memory().numTensors
  })
  after(() => {
    assert.equal(tf.memory().numTensors, tensors, 'no tensor is left')
    internvl.dispose()
  })
  const withInput = async (f: (input: ExplainedInput) => void | Promise<void>, options = {}) => {
    const input = await explainedInput(internvl, question, options)
    try {
      await f(input)
    } finally {
      input.dispose()
    }
  }

  it('occlusion and gradient of the colour word lie on the shape, in at least five of six nearly square rendered scenes', async () => {
    const scenes = Array.from({ length: 20 }, (_, index) => colourScene(20, index)).filter(({ isLong }) => !isLong)
    for (const method of ['occlusion', 'gradient'] as const) {
      const truths = []
      for (const scene of scenes.slice(0, 6)) truths.push(await truthOf(internvl, scene, { method, cells: 8, steps: 8 }))
      const holds = truths.filter((truth) => truth && truth.mass > 0.5 && truth.insertion > truth.deletion)
      assert.ok(holds.length >= 5, `${method} ${JSON.stringify(truths)}`)
    }
  })

  describe('maps over the image', () => {
    const layout = fc.record({
      rows: fc.integer({ min: 1, max: 3 }),
      columns: fc.integer({ min: 1, max: 3 }),
      width: fc.integer({ min: 20, max: 90 }),
      height: fc.integer({ min: 20, max: 90 }),
      side: fc.integer({ min: 1, max: 4 })
    })
    const imageOf = ({ rows, columns, width, height }: Record<'rows' | 'columns' | 'width' | 'height', number>) => {
      const tiles = rows * columns === 1 ? 1 : rows * columns + 1
      return { rows, columns, width, height, tiles, firstTile: 0, pixels: { data: new Uint8Array(0), width, height } }
    }

    it('keep the sum of all tiles and the thumbnail', () =>
      fc.assert(
        fc.property(layout, fc.nat(), (one, seed) =>
          tf.tidy(() => {
            const image = imageOf(one)
            const values = tf.randomUniform<tf.Rank.R3>([image.tiles, one.side, one.side], 0, 1, 'float32', seed)
            const map = mapOverImage(values, image)
            assert.deepEqual(map.shape, [one.height, one.width])
            assertClose(map.sum(), values.sum(), 1e-4, 'sum')
            const total = normalizedMap(map.sub(map.mean())).sum().dataSync()[0]!
            assert.ok(Math.abs(total - 1) < 1e-4 || (total === 0 && map.max().sub(map.min()).dataSync()[0]! < 1e-6))
          })
        ),
        { numRuns: 25 }
      ))

    it('have the largest value of a tile at the position of this tile in the image', () =>
      fc.assert(
        fc.property(layout, fc.nat(8), fc.nat(3), fc.nat(3), (one, tile, y, x) =>
          tf.tidy(() => {
            const [image, side] = [imageOf(one), one.side]
            const [t, row, column] = [tile % (one.rows * one.columns), y % side, x % side]
            const values = tf.buffer([image.tiles, side, side])
            values.set(1, t, row, column)
            const peak = mapOverImage(values.toTensor() as tf.Tensor3D, image)
              .flatten()
              .argMax()
              .dataSync()[0]!
            const at = [Math.floor(peak / one.width) + 0.5, (peak % one.width) + 0.5]
            const cells = [one.rows * side, one.columns * side]
            const cell = [Math.floor(t / one.columns) * side + row, (t % one.columns) * side + column]
            for (const [i, size] of [one.height, one.width].entries()) {
              const position = (at[i]! / size) * cells[i]!
              assert.ok(Math.abs(position - cell[i]! - 0.5) <= 0.5 + cells[i]! / size, `${position} in cell ${cell[i]}`)
            }
          })
        ),
        { numRuns: 25 }
      ))

    it('regions of a grid cover every pixel of every tile once', () =>
      fc.assert(
        fc.property(layout, fc.integer({ min: 1, max: 5 }), (one, n) =>
          tf.tidy(() => {
            const tiles = tileRegions(imageOf(one))
            const covers = gridRegions(n, n + 1).flatMap((region) => tiles.map((_, tile) => ({ region, tile })))
            const masks = regionMasks(covers, tiles, 6, 7).reshape([n * (n + 1), tiles.length, 6, 7])
            assertClose(masks.sum(0), tf.ones([tiles.length, 6, 7]), 1e-5, 'sum of masks')
          })
        ),
        { numRuns: 15 }
      ))
  })

  it('only the tiles that show a covered region are encoded again, and the features are those of all tiles covered', () =>
    withInput(
      (input) => {
        assert.ok(input.image.tiles > 2 && input.image.tiles === input.pixelValues.shape[0])
        tf.tidy(() => {
          const regions = gridRegions(3, 2).slice(1, 4)
          const features = internvl.model.imageFeatures(input.pixelValues)
          const [, , h, w] = input.pixelValues.shape
          const expected = regions.map((region) => {
            const tiles = tileRegions(input.image)
            const masks = regionMasks(tiles.map((_, tile) => ({ region, tile })), tiles, h, w) // biome-ignore format: one line
            const colours = medianColours(input.pixelValues)
            return internvl.model.imageFeatures(input.pixelValues.add(colours.sub(input.pixelValues).mul(masks)))
          })
          assertClose(featuresWithout(internvl.model, input, features, regions), tf.concat(expected), 1e-4, 'features')
        })
      },
      { maxPatches: 6, cropToPatches: true }
    ))

  it('one step of the gradient map sums to the derivative of the log-probability from the median colour to the image', () =>
    withInput(async (input) => {
      const part = { text: 'all', tokens: [0, 1] }
      const map = await gradientMap(internvl.model, input, part, { steps: 1, batchSize: 1 })
      tf.tidy(() => {
        const sum = map.sum().dataSync()[0]!
        const tiles = imageTiles(input)
        const colours = medianColours(tiles)
        const scoreAt = (share: number) => {
          const features = internvl.model.imageFeatures(colours.add<tf.Tensor4D>(tiles.sub(colours).mul(share)))
          return partScores(internvl.model, input, [part], features, 1).dataSync()[0]!
        }
        const derivative = (scoreAt(0.501) - scoreAt(0.499)) / 0.002
        assert.ok(Math.abs(sum - derivative) < 0.02 * Math.abs(derivative), `${sum} and ${derivative}`)
      })
      map.dispose()
    }))

  it('the attention map of a token is the attention of generate before this token', () =>
    withInput(async (input) => {
      const prompt = input.ids.slice(0, input.promptLength)
      const inputIds = tf.tensor2d([prompt], undefined, 'int32')
      const result = await generateAll(
        internvl.model,
        { inputIds, pixelValues: input.pixelValues },
        { maxNewTokens: 2, outputAttentions: [-1] }
      )
      tf.tidy(() => {
        const index = tf.tensor1d([...input.imageTokens], 'int32')
        for (const token of [0, 1]) {
          const [map] = attentionMaps(internvl.model, input, [{ text: '', tokens: [token] }], [-1])
          const weights = result.attentions![token]![0]!
          const [, H, Lq, Lk] = weights.shape
          const last = weights
            .slice([0, 0, Lq - 1, 0], [1, H, 1, Lk])
            .mean(1)
            .reshape([Lk])
            .gather(index)
          assertClose(map!.flatten(), last, 1e-5, `token ${token}`)
        }
      })
      disposeResult(result)
      inputIds.dispose()
    }))

  it('words and tokens of an answer; each token with text is in one word', () => {
    const ids = internvl.processor.tokenizer.encode('There is a red circle at the top left.', { addSpecialTokens: false })
    const words = answerWords(internvl, ids)
    assert.deepEqual(words.map(({ text }) => text), ['There', 'is', 'a', 'red', 'circle', 'at', 'the', 'top', 'left', '.']) // biome-ignore format: one line
    assert.deepEqual(words.flatMap(({ tokens }) => tokens), [...ids.keys()]) // biome-ignore format: one line
    assert.deepEqual(answerTokens(internvl, ids).flatMap(({ tokens }) => tokens), [...ids.keys()]) // biome-ignore format: one line
  })

  it('every method gives maps that sum to 1; a word, a token, and a given answer are chosen', async () => {
    for (const method of ['attention', 'rollout', 'gradient', 'occlusion'] as const) {
      const few = { method, steps: 2, cells: 3 }
      const words = await explain(internvl, question, few)
      assert.deepEqual(words.answer.match(/\w+|\./g), words.parts.map(({ text }) => text)) // biome-ignore format: one line
      const token = await explain(internvl, question, { ...few, token: -1 })
      assert.deepEqual([token.parts.length, token.parts[0]!.text], [1, '.'])
      const given = await explain(internvl, question, { ...few, answer: 'Green.', token: 'GREEN' })
      assert.deepEqual([given.answer, given.parts.length, given.parts[0]!.text], ['Green.', 1, 'Green'])
      const { width, height } = words.image
      for (const { map } of [...words.parts, ...token.parts, ...given.parts]) {
        assert.deepEqual(map.shape, [height, width])
        const values = Array.from(await map.data())
        const sum = values.reduce((a, b) => a + b, 0)
        assert.ok(Math.abs(sum - 1) < 1e-3 || sum === 0, `${method} ${sum}`)
        assert.ok(values.every((value) => value >= 0))
      }
      const png = await readImage(await heatPng(words, words.parts[0]!))()
      assert.ok(png._tag === 'Right' && png.right.width === width && png.right.height === height)
      const strip = await heatStrip(words)
      assert.ok(strip.width > 2 * 224 && strip.data.length === strip.width * strip.height * 3)
      for (const one of [words, token, given]) one.dispose()
    }
  })

  it('progress rises from 0 to the total, which the options determine; an abort ends the work and leaves no tensor', async () => {
    const totals = { attention: 1, rollout: 1, gradient: 2 * 5, occlusion: 3 * 3 } // 2 parts: a word and the full stop
    for (const [method, total] of Object.entries(totals) as [keyof typeof totals, number][]) {
      const reports: number[] = []
      const given = { method, answer: 'Green.', steps: 5, cells: 3, batchSize: 2 }
      const onProgress = (done: number, of: number): void => {
        assert.equal(of, total, method)
        reports.push(done)
      }
      const { dispose } = await explain(internvl, question, { ...given, onProgress })
      dispose()
      assert.deepEqual([reports[0], reports.at(-1)], [0, total], `${method} ${reports}`)
      assert.ok(
        reports.every((done, i) => i === 0 || done >= reports[i - 1]!),
        `${method} ${reports}`
      )
      for (const last of [reports.at(-2)!, total]) {
        const left = new AbortController()
        const reported: number[] = []
        const leaving = (done: number): void => {
          reported.push(done)
          if (done === last) left.abort()
        }
        await assert.rejects(explain(internvl, question, { ...given, onProgress: leaving, signal: left.signal }), /abort/i)
        assert.equal(reported.at(-1), last, method)
      }
    }
  })

  it('errors name the option and say what the answer has', async () => {
    const rejected = (options: object, message: RegExp, messages = question) =>
      assert.rejects(explain(internvl, messages, options), message)
    await rejected({ method: 'lime' }, /method: expected occlusion, gradient, attention, rollout, got "?lime/)
    await rejected({ cells: 0 }, /cells: expected a whole number from 1 to 128, got 0/)
    await rejected({ token: 'zebra', method: 'attention' }, /token: "?zebra"? is not in the answer; the answer has \w+, \./)
    await rejected({ token: 9, method: 'attention' }, /token: 9 is not in the answer; the answer has 0 /)
    await rejected({ image: 1 }, /image: expected an index from 0 to 0, got 1/)
    await rejected({ layers: [7], method: 'attention' }, /expected layers from -4 to 3, got 7/)
    await rejected({ answer: '' }, /answer: expected at least one token/)
    await rejected({}, /messages: expected an image to explain, got none/, [{ role: 'user', content: 'Hello!' }])
    await rejected({ signal: AbortSignal.abort() }, /abort/i)
  })

  it('internvl explain writes the strip and prints the answer', async () => {
    const out = join(await mkdtemp(join(tmpdir(), 'explain-')), 'heat.png')
    const lines: string[] = []
    const { write } = process.stdout
    process.stdout.write = ((text: string) => lines.push(text) > 0) as typeof write
    try {
      await program().parseAsync(['explain', '--image', shapes, 'What color is the shape at the top left?', '--cells', '3', '--out', out, '--json'], { from: 'user' }) // biome-ignore format: one line
    } finally {
      process.stdout.write = write
    }
    const report = JSON.parse(lines.join(''))
    assert.ok(report.parts.length >= 2 && report.parts[0].peak.x < report.width)
    assert.equal((await readFile(out)).subarray(1, 4).toString(), 'PNG')
    await assert.rejects(
      program().parseAsync(['explain', '--image', shapes, 'x', '--out', 'heat.gif'], { from: 'user' }),
      /written as/
    )
  })
})
