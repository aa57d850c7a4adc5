import assert from 'node:assert/strict'
import fc from 'fast-check'
import * as E from 'fp-ts/lib/Either.js'
import { getOrThrow, InternVLError, orThrow } from '../../../lib/error.js'
import { readImage } from '../../../processors/image/image.js'
import { frameIndices } from '../../../processors/video/frame-sampling.js'
import { openVideo } from '../../../processors/video/video.js'
import { cases, imagePath } from '../cases.js'

const sampling = { numFrames: undefined, fps: undefined, initialShift: true }

describe('video', () => {
  it('samples the same frames as Transformers, by number, by rate, with every shift', () => {
    for (const { total, rate, numFrames, fps, initialShift, indices } of cases.frame_indices) {
      const options = { numFrames: numFrames ?? undefined, fps: fps ?? undefined, initialShift }
      const got = getOrThrow(frameIndices({ totalNumFrames: total, fps: rate }, options))
      assert.deepEqual(got, indices, JSON.stringify({ total, rate, ...options }))
    }
  })

  it('samples the requested number of frames, at rising indices inside the video', () => {
    const videos = fc
      .integer({ min: 1, max: 5000 })
      .chain((total) => fc.tuple(fc.constant(total), fc.integer({ min: 1, max: total })))
    fc.assert(
      fc.property(videos, ([totalNumFrames, numFrames]) => {
        const indices = getOrThrow(frameIndices({ totalNumFrames }, { ...sampling, numFrames }))
        assert.equal(indices.length, numFrames)
        assert.ok(indices.every((index, i) => index >= 0 && index < totalNumFrames && (i === 0 || index > indices[i - 1]!)))
      })
    )
  })

  it("reports invalid requests, with Transformers' messages where it has one", () => {
    const wrong = (total: number, options: Partial<Parameters<typeof frameIndices>[1]>, fps?: number): string => {
      const result = frameIndices({ totalNumFrames: total, fps }, { ...sampling, ...options })
      return E.isLeft(result) ? result.left[0].message : 'no error'
    }
    assert.match(wrong(3, { numFrames: 4 }), /The `num_frames=4` exceeds `total_num_frames=3`/)
    const calls: number[][] = []
    const onFewerFrames = (...numbers: number[]) => void calls.push(numbers)
    const all = frameIndices({ totalNumFrames: 3 }, { ...sampling, numFrames: 4, onFewerFrames })
    assert.deepEqual([getOrThrow(all), calls], [[0, 1, 2], [[4, 3]]])
    assert.match(wrong(9, { numFrames: 4, fps: 1 }, 30), /numFrames=4 and fps=1 exclude each other/)
    assert.match(wrong(9, { fps: 1 }), /fps=1 needs the video's own frame rate/)
    assert.match(wrong(9, { numFrames: 3, initialShift: 9 }), /initialShift=9 lies outside/)
    assert.match(wrong(9, { numFrames: 3, initialShift: Number.NaN }), /initialShift: expected true, false or a number, got NaN/)
    for (const numFrames of [0, -1, 2.5, Number.NaN, Number.POSITIVE_INFINITY])
      assert.match(wrong(9, { numFrames }), /^numFrames: expected a whole number above 0, got/)
    for (const fps of [0, -1, Number.NaN, Number.POSITIVE_INFINITY])
      assert.match(wrong(9, { fps }, 30), /^fps: expected a number above 0, got/)
    for (const rate of [0, -1, Number.NaN])
      assert.match(wrong(9, { fps: 1 }, rate), /fps=1 needs the video's own .* above 0; its frame rate is/)
    assert.match(wrong(9, { fps: 1 }, 30), /fps=1: no frame would be sampled from a video of 9 frames/)
  })

  it('reads a folder of frames in order, and reports a missing folder', async () => {
    const video = await orThrow(openVideo(imagePath('')))
    assert.ok(video.totalNumFrames > 40)
    const names = ['1-bit.bmp', '1x1.png']
    for await (const frame of video.frames([0, 1]))
      assert.deepEqual(getOrThrow(frame), await orThrow(readImage(imagePath(names.shift()!))))
    assert.equal(names.length, 0)
    await assert.rejects(orThrow(openVideo(imagePath('nowhere'))), InternVLError)
    await assert.rejects(orThrow(openVideo([])), InternVLError)
  })
})
