import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import {
  type BackgroundName,
  type ColourName,
  drawShape,
  ground,
  type Shape,
  sceneSample,
  taskWeights
} from '../../../generation/demo/scenes.js'
import { orThrow } from '../../../lib/error.js'
import { type RawImage, readImage } from '../../../processors/image/image.js'
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

  it('images are 150 to 420 pixels wide and 0.8 to 1.25 times as high; videos have 3 or 4 square frames', () => {
    for (const row of samples) {
      const images = shown(row)
      assert.equal(images.length, { hello: 0, compare: 2, video: images.length }[row.task as string] ?? 1)
      for (const { width, height } of images)
        assert.ok(width >= 150 && width <= 420 && height >= width * 0.8 - 1 && height <= width * 1.25)
      if (row.task === 'video')
        assert.ok([3, 4].includes(images.length) && images.every(({ width, height }) => width === height && width <= 300))
    }
  })
})
