import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { demoModel } from '../../../generation/checkpoint/load.js'
import { type BackgroundName, type ColourName, drawShape, ground, type Shape } from '../../../generation/demo/render-scene.js'
import { makeSample } from '../../../generation/demo/scene-samples.js'
import { sceneSample, taskWeights } from '../../../generation/demo/scenes.js'
import { parseGrounding } from '../../../generation/grounding.js'
import { orThrow } from '../../../lib/error.js'
import { type RawImage, readImage } from '../../../processors/image/image.js'
import { loadProcessor } from '../../../processors/processor.js'
import { itemsOf } from '../../../processors/text/messages.js'

interface Made {
  readonly background: BackgroundName
  readonly items: ReadonlyArray<{ readonly colour: ColourName; readonly x: number; readonly y: number; readonly r: number }>
}

const file = (name: string): string => fileURLToPath(new URL(name, import.meta.url))
const made = JSON.parse(readFileSync(file('images.json'), 'utf8')) as Record<Shape, Made>
const samples = Array.from({ length: 3000 }, (_, i) => sceneSample(777, i))
const shown = (row: (typeof samples)[number]): readonly RawImage[] =>
  itemsOf(row.messages[0]!).flatMap((item) =>
    item.type === 'image' ? [item.image as RawImage] : item.type === 'video' ? (item.frames as RawImage[]) : []
  )
const answerOf = (row: (typeof samples)[number]) => row.messages[1]!.content as string
const centres = { 'top left': [0.25, 0.25], 'top right': [0.75, 0.25], 'bottom left': [0.25, 0.75], 'bottom right': [0.75, 0.75] }

const colourAt = ({ data, width, height }: RawImage, [fx, fy]: readonly number[]): readonly number[] => {
  const at = (Math.floor(height * fy!) * width + Math.floor(width * fx!)) * 3
  return [...data.subarray(at, at + 3)]
}

/** First and last column and row with a colour, in a quarter of the image, in thousandths of its size. */
const extentOf = (
  { data, width, height }: RawImage,
  colour: readonly number[],
  [left, top]: readonly number[]
): readonly number[] => {
  let [x1, y1, x2, y2] = [width, height, 0, 0]
  for (let y = Math.floor(top! * height); y < (top! + 0.5) * height; y++)
    for (let x = Math.floor(left! * width); x < (left! + 0.5) * width; x++) {
      if (!colour.every((value, channel) => data[(y * width + x) * 3 + channel] === value)) continue
      ;[x1, y1, x2, y2] = [Math.min(x1, x), Math.min(y1, y), Math.max(x2, x + 1), Math.max(y2, y + 1)]
    }
  return [x1 / width, y1 / height, x2 / width, y2 / height].map((part) => 1000 * part)
}

describe('demo scenes', () => {
  for (const [shape, { background, items }] of Object.entries(made) as [Shape, Made][])
    it(`a ${shape} has Pillow's pixels, all but two in a shape`, async () => {
      const image = ground(330, 220, background)
      for (const { colour, x, y, r } of items) drawShape(image, shape, colour, x, y, r)
      const { data } = await orThrow(readImage(file(`${shape}.png`)))
      const differing = new Set([...data.entries()].filter(([i, v]) => v !== image.data[i]).map(([i]) => Math.floor(i / 3)))
      assert.ok(differing.size <= 2 * items.length, `${differing.size} pixels differ`)
    })

  it('a sample depends on its seed and index alone', () => {
    fc.assert(
      fc.property(fc.nat(), fc.nat(), (seed, index) => {
        assert.deepEqual(sceneSample(seed, index), sceneSample(seed, index))
        assert.notDeepEqual(sceneSample(seed, index), sceneSample(seed + 1, index))
      }),
      { numRuns: 10 }
    )
  })

  it('tasks are sampled by their weights', () => {
    const total = Object.values(taskWeights).reduce((a, b) => a + b, 0)
    for (const [task, weight] of Object.entries(taskWeights)) {
      const [n, p] = [samples.filter((row) => row.task === task).length, weight / total]
      assert.ok(Math.abs(n - 3000 * p) < 4 * Math.sqrt(3000 * p * (1 - p)), `${task}: ${n} of 3000`)
    }
    assert.ok(Array.from({ length: 20 }, (_, i) => sceneSample(1, i, { count: 1 })).every(({ task }) => task === 'count'))
  })

  it('a description lists exactly the shapes in its image', () => {
    for (const row of samples.filter(({ task }) => task === 'describe').slice(0, 300)) {
      const [image] = shown(row)
      const described = new Map(
        [...answerOf(row).matchAll(/an? (\w+) \w+ at the (\w+ \w+)/g)].map(([, colour, cell]) => [cell!, colour!])
      )
      for (const [cell, centre] of Object.entries(centres)) {
        const colour = described.get(cell)
        const expected = ground(1, 1, 'white')
        if (colour) drawShape(expected, 'square', colour as ColourName, 0, 0, 1)
        assert.deepEqual(colourAt(image!, centre), colour ? [...expected.data] : colourAt(image!, [0.01, 0.01]))
      }
    }
  })

  it('the longer side has at most 525 pixels; three in ten single images are wide or tall; videos have 3 or 4 square frames', () => {
    let [long, single] = [0, 0]
    for (const row of samples) {
      const images = shown(row)
      assert.equal(images.length, { hello: 0, compare: 2, video: images.length }[row.task as string] ?? 1)
      for (const { width, height } of images) {
        const ratio = Math.max(width / height, height / width)
        assert.ok(Math.max(width, height) <= 525 && Math.min(width, height) >= 67 && ratio < 2.3, `${width} x ${height}`)
        if (images.length === 1) single++
        if (ratio > 1.6) long++
        assert.ok(ratio <= 1.26 || (ratio > 1.6 && images.length === 1))
      }
      if (row.task === 'video')
        assert.ok([3, 4].includes(images.length) && images.every(({ width, height }) => width === height && width <= 300))
    }
    assert.ok(Math.abs(long / single - 0.3) < 0.04, `${long} of ${single}`)
  })

  it('the boxes of a name enclose exactly the pixels of its shapes; a name that is not in the image has none', () => {
    const all = Array.from({ length: 300 }, (_, i) => sceneSample(31, i, { find: 1 }))
    let absent = 0
    for (const row of all) {
      const [image] = shown(row)
      const question = itemsOf(row.messages[0]!).flatMap((item) => (item.type === 'text' ? [item.text] : []))[0]!
      const [name, colour] = /(\w+) \w+(?=\.$|<\/ref>$)/.exec(question) as unknown as [string, ColourName]
      const { groundings, problems } = parseGrounding(answerOf(row))
      if (groundings.length === 0) {
        assert.deepEqual([answerOf(row), row.metric], [`There is no ${name}.`, undefined])
        absent++
        continue
      }
      assert.deepEqual([groundings.length, groundings[0]!.label, problems, row.metric], [1, name, [], 'mean-iou'])
      const paint = ground(1, 1, 'white')
      drawShape(paint, 'square', colour, 0, 0, 1)
      for (const [x1, y1, x2, y2] of groundings[0]!.boxes) {
        const extent = extentOf(image!, [...paint.data], [x1 < 500 ? 0 : 0.5, y1 < 500 ? 0 : 0.5])
        for (const [i, side] of [x1, y1, x2, y2].entries())
          assert.ok(
            Math.abs(side - extent[i]!) <= 5 + 1000 / Math.min(image!.width, image!.height),
            `${answerOf(row)}: ${extent}`
          )
      }
    }
    assert.ok(absent > 15 && absent < 60, `${absent} of 300`)
  })

  it('with two patches a wide or tall scene is encoded as two tiles and a thumbnail, with one patch as one tile', async () => {
    const processor = await orThrow(loadProcessor(demoModel))
    for (let index = 0; index < 24; index++) {
      const spec = { seed: 3, index, weights: { where: 1 }, maxPatches: 1 + (index % 2) }
      const [image] = shown(sceneSample(3, index, spec.weights))
      const { sample } = await orThrow(makeSample(processor, spec))
      const isLong = Math.max(image!.width / image!.height, image!.height / image!.width) > 1.5
      assert.deepEqual(sample.numPatches, [index % 2 === 1 && isLong ? 3 : 1])
    }
  })
})
