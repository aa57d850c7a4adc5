import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { type Grounding, groundedText, parseGrounding, renderGrounding, toPixels } from '../../generation/index.js'
import { loadProcessor, orThrow, readImage } from '../../generation/root.js'
import { getOrThrow } from '../../lib/index.js'
import { drawOn } from '../../processors/image/draw.js'
import { buildTokenizer } from '../../processors/text/tokenizer.js'

const corner = fc.integer({ min: 0, max: 1000 })
const box = fc.tuple(corner, corner, corner, corner)
const label = fc.string().filter((text) => !/<\/?(ref|box)>/.test(text))
const grounding: fc.Arbitrary<Grounding> = fc.record({ label, boxes: fc.array(box, { minLength: 1, maxLength: 3 }) })
const words = fc.string().filter((text) => !text.includes('<') && !text.includes('>'))

describe('grounding', () => {
  it('parse(render(groundings)) equals the groundings, with any text between them', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(words, grounding)), words, (parts, last) => {
        const text = parts.map(([before, g]) => before + renderGrounding(g)).join('') + last
        assert.deepEqual(parseGrounding(text), { groundings: parts.map(([, g]) => ({ ...g })), problems: [] })
      })
    )
  })

  it('accepts one box without the outer list, words between name and box, and boxes without a name', () => {
    const read = (text: string) => parseGrounding(text).groundings
    assert.deepEqual(read('<ref>cat</ref> at <box>[1, 2, 3, 4]</box>'), [{ label: 'cat', boxes: [[1, 2, 3, 4]] }])
    assert.deepEqual(read('<box>[[1,2,3,4],[5,6,7,8]]</box>'), [{ label: '', boxes: [[1, 2, 3, 4], [5, 6, 7, 8]] }]) // biome-ignore format: one line
  })

  it('reports malformed groundings, keeps valid ones, and never throws', () => {
    const good = '<ref>a</ref><box>[[1, 2, 3, 4]]</box>'
    for (const bad of [
      '<ref>b</ref><box>[[1, 2, 3',
      '<ref>b',
      '<ref>b</ref>',
      '</box>',
      '<ref>b</ref><box>[[1, 2, 3]]</box>',
      '<ref>b</ref><box>[[1, 2, 3, 4000]]</box>',
      '<ref>b</ref><box>[]</box>',
      '<ref>b</ref><box>left</box>',
      '<ref>b</ref><box>null</box>'
    ]) {
      const { groundings, problems } = parseGrounding(good + bad)
      assert.deepEqual([groundings.length, problems.length], [1, 1], bad)
    }
    const tags = fc.constantFrom('<ref>', '</ref>', '<box>', '</box>', '[[1, 2, 3, 4]]', '[', 'cat', '1,', '"')
    fc.assert(fc.property(fc.array(tags), (parts) => void parseGrounding(parts.join(''))))
  })

  it('pixels are inside the image, corners in order', () => {
    const side = fc.integer({ min: 1, max: 5000 })
    fc.assert(
      fc.property(fc.array(grounding), side, side, (groundings, width, height) => {
        for (const { left, top, right, bottom } of toPixels(groundings, { width, height })) {
          assert.ok(0 <= left && left <= right && right <= width, `${left} ${right} ${width}`)
          assert.ok(0 <= top && top <= bottom && bottom <= height, `${top} ${bottom} ${height}`)
        }
      })
    )
    const [whole] = toPixels([{ label: '', boxes: [[0, 0, 1000, 500]] }], { width: 640, height: 480 })
    assert.deepEqual(whole, { label: '', left: 0, top: 0, right: 640, bottom: 240 })
  })

  it('draws boxes on the image at its own size, for any label', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'internvl-'))
    const [file, source] = [
      join(folder, 'out.png'),
      { data: new Uint8Array(200 * 100 * 3), width: 200, height: 100, channels: 3 as const }
    ]
    const boxes = [{ label: '<&"\u0000ü', left: 50, top: 40, right: 150, bottom: 80 }]
    await orThrow(drawOn(source, () => boxes, file))
    const { data, width, height } = await orThrow(readImage(file))
    assert.deepEqual([width, height], [200, 100])
    const lit = (x: number, y: number) => data.subarray((y * width + x) * 3, (y * width + x) * 3 + 3).some((v) => v > 60)
    assert.ok(lit(50, 60) && lit(100, 40) && lit(150, 60) && lit(100, 80), 'on the frame')
    assert.ok(!lit(100, 60) && !lit(20, 90), 'not inside, not far away')
    await assert.rejects(orThrow(drawOn(source, () => [], join(folder, 'out.xyz'))), /written as \.png/)
    await assert.rejects(orThrow(drawOn(source, () => [], join(folder, 'no', 'out.png'))), /cannot be written/)
    await rm(folder, { recursive: true })
  })

  it('text for parsing keeps <ref> and <box> where they are special tokens, and drops the others', async () => {
    const added = ['<ref>', '</ref>', '<box>', '</box>', '<|im_end|>'].map((content, i) => ({
      id: 300 + i,
      content,
      special: true
    }))
    const vocab = Object.fromEntries(['c', 'a', 't', '[', ']', ',', '1'].map((word, id) => [word, id]))
    const model = { type: 'BPE', vocab, merges: [] }
    const tokenizer = getOrThrow(buildTokenizer({ model, added_tokens: added }, {}, 'made'))
    const text = '<ref>cat</ref><box>[[1,1,1,1]]</box>'
    const ids = tokenizer.encode(`${text}<|im_end|>`)
    assert.equal(tokenizer.decode(ids, { skipSpecialTokens: true }).replaceAll(' ', ''), 'cat[[1,1,1,1]]')
    assert.equal(groundedText(tokenizer, ids).replaceAll(' ', ''), text)
    const { tokenizer: demo } = await orThrow(loadProcessor(fileURLToPath(new URL('../../models/demo', import.meta.url))))
    assert.equal(groundedText(demo, demo.encode(`${text}<|im_end|>`)), text)
  })
})
