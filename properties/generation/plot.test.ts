import assert from 'node:assert/strict'
import fc from 'fast-check'
import sharp from 'sharp'
import { linePlot, type Panel, plotSvg } from '../../generation/plot.js'

const labels = { title: 'Loss', x: 'step', y: 'nats' }
const finite = fc.double({ min: -1e6, max: 1e6, noNaN: true })
const lines = fc.array(fc.array(finite, { minLength: 1, maxLength: 6 }), { minLength: 1, maxLength: 3 })
const panelOf = (ys: readonly (readonly number[])[]): Panel => ({
  ...labels,
  series: ys.map((line, i) => ({ name: `line ${i}`, points: line.map((y, x) => [x, y] as const) }))
})
/** Numbers of pieces and vertices of the path of each line. */
const pathsOf = (svg: string): readonly (readonly [pieces: number, vertices: number])[] =>
  [...svg.matchAll(/aria-roledescription="line mark"[^>]* d="([^"]*)"/g)].map(([, d]) => [
    d!.match(/M/g)?.length ?? 0,
    d!.match(/[ML]/g)?.length ?? 0
  ])

describe('plot', () => {
  it('draws every point of every series once, in one piece', () =>
    fc.assert(
      fc.asyncProperty(lines, async (ys) => {
        assert.deepEqual(
          pathsOf(await plotSvg([panelOf(ys)])),
          ys.map((line) => [1, line.length])
        )
      }),
      { numRuns: 15 }
    ))

  it('leaves a gap for values that are not finite, or not above 0 on a logarithmic axis', async () => {
    const gaps = (ys: readonly number[], logY: boolean) => plotSvg([{ ...panelOf([ys]), logY }]).then(pathsOf)
    for (const gap of [Number.NaN, Number.POSITIVE_INFINITY]) assert.deepEqual(await gaps([1, 2, gap, 3, 4], false), [[2, 4]])
    assert.deepEqual(await gaps([1, 2, 0, 3, 4], true), [[2, 4]])
    assert.deepEqual(await gaps([1, 2, 0, 3, 4], false), [[1, 5]])
  })

  it('shows the title, both axes, every series and the categories of x, escaped', async () => {
    const words = ['b<&', 'a']
    const series = ['train', 'eval'].map((name) => ({ name, points: words.map((word, y) => [word, y] as const) }))
    const svg = await plotSvg([{ ...labels, series }])
    for (const text of ['Loss', 'step', 'nats', 'train', 'eval', 'b&lt;&amp;', 'a'])
      assert.ok(svg.includes(`>${text}</text>`), text)
    assert.ok(svg.indexOf('>b&lt;') < svg.indexOf('>a</text>'), 'words stand in the order they came')
  })

  it('is a PNG of the drawing on white, panels below each other', async () => {
    const bytes = await linePlot(panelOf([[1, 2]]).series, labels)
    const { format, width, channels } = await sharp(bytes).metadata()
    assert.deepEqual([format, channels], ['png', 3])
    assert.ok(width > 1000)
    const height = async (panels: number) =>
      Number(/height="(\d+)"/.exec(await plotSvg(Array(panels).fill(panelOf([[1, 2]]))))![1])
    assert.ok((await height(2)) > 1.8 * (await height(1)))
  })

  it('refuses a panel without points', async () => {
    for (const ys of [[], [[]], [[Number.NaN]]]) await assert.rejects(plotSvg([panelOf(ys)]), /RangeError: linePlot: "Loss"/)
  })
})
