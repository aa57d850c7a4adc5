import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import fc from 'fast-check'
import { answer, load, tf } from '../../../generation/root.js'
import { getOrThrow, orThrow } from '../../../lib/error.js'
import type { Rgb } from '../../../processors/image/resize.js'
import { loadProcessor } from '../../../processors/processor.js'
import type { VideoSource } from '../../../processors/text/messages.js'
import { ffmpeg } from '../../../processors/video/ffmpeg.js'
import type { Film } from '../../../processors/video/film.js'
import { rotate } from '../../../processors/video/timeline.js'
import { openFilm } from '../../../processors/video/video.js'
import { openFilmFile } from '../../../processors/video/video-file.js'
import { demo } from '../cases.js'

/** What torchcodec 0.17 says of a film; `blocks`, of short films, is the mean colour of each of 4 x 2 blocks of each frame. */
interface Expected {
  readonly totalNumFrames: number
  readonly fps: number
  readonly width: number
  readonly height: number
  readonly blocks: readonly (readonly (readonly number[])[])[] | null
}

const films = fileURLToPath(new URL('../films/', import.meta.url))
const expected = JSON.parse(await readFile(join(films, 'films.json'), 'utf8')) as Readonly<Record<string, Expected>>
// where torchcodec counts frames that are never shown, or fails: what the film's maker put in it
const uncounted: Readonly<Record<string, number>> = { 'hidden.webm': 20, 'plain.m2ts': 12 }
const path = (name: string): string => join(films, name)
const numbered = ['b-frames.mp4', 'open-gop.mkv', 'varying.mp4', 'odd.webm', 'hidden.webm', 'no-index.mp4'].concat(
  ['mov', 'avi', 'm2ts', 'gif'].map((kind) => `plain.${kind}`)
)

const framesAt = async (film: Film, indices: readonly number[]): Promise<Rgb[]> => {
  const frames: Rgb[] = []
  for await (const frame of film.frames(indices)) frames.push(getOrThrow(frame))
  return frames
}
const allOf = (film: Film): readonly number[] => Array.from({ length: film.totalNumFrames }, (_, i) => i)

/** Mean colour of the 4 x 2 blocks. */
const blocks = ({ data, width, height }: Rgb): number[][] =>
  Array.from({ length: 8 }, (_, k) => {
    const [top, bottom] = [0, 1].map((n) => Math.floor((((k >> 2) + n) * height) / 2)) as [number, number]
    const [left, right] = [0, 1].map((n) => Math.floor((((k % 4) + n) * width) / 4)) as [number, number]
    const sums = [0, 0, 0]
    for (let y = top; y < bottom; y++)
      for (let x = left; x < right; x++) for (let c = 0; c < 3; c++) sums[c]! += data[(y * width + x) * 3 + c]!
    return sums.map((sum) => sum / ((bottom - top) * (right - left)))
  })

/** The index that a frame shows: a bit a block. */
const indexIn = (frame: Rgb): number => blocks(frame).reduce((sum, [red], k) => sum + (red! > 128 ? 1 << k : 0), 0)

const wrong = async (source: VideoSource): Promise<string> =>
  orThrow(openFilm(source)).then(
    async (film) =>
      framesAt(film, allOf(film)).then(
        () => 'no error',
        (error: Error) => error.message
      ),
    (error: Error) => error.message
  )

describe('video files', () => {
  let dir: string
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'internvl-films-'))
  })
  after(() => rm(dir, { recursive: true }))

  it("counts frames, their rate and size, and gives their colours, as Transformers' decoder does", async () => {
    for (const [name, { totalNumFrames, fps, width, height, blocks: colours }] of Object.entries(expected)) {
      const film = await orThrow(openFilm(path(name)))
      const size = await orThrow(film.sizeOf(0))
      assert.deepEqual({ name, n: film.totalNumFrames, ...size }, { name, n: totalNumFrames, width, height })
      assert.ok(Math.abs(film.fps! - fps) < 1e-9, `${name}: ${film.fps} frames a second, expected ${fps}`)
      for (const [i, frame] of (await framesAt(film, colours ? allOf(film) : [])).entries())
        for (const [k, colour] of blocks(frame).entries())
          for (const [c, value] of colour.entries())
            assert.ok(Math.abs(value - colours![i]![k]![c]!) <= 1, `${name}: frame ${i}, block ${k}: ${colour}`)
    }
    for (const [name, n] of Object.entries(uncounted)) assert.equal((await orThrow(openFilm(path(name)))).totalNumFrames, n)
  })

  it('gives the frame of each index, whichever are asked for', async () => {
    for (const name of numbered) {
      const film = await orThrow(openFilm(path(name)))
      assert.deepEqual((await framesAt(film, allOf(film))).map(indexIn), allOf(film), name)
      await fc.assert(
        fc.asyncProperty(fc.subarray([...allOf(film)]), async (indices) => {
          assert.deepEqual((await framesAt(film, indices)).map(indexIn), indices, name)
        }),
        { numRuns: 8 }
      )
    }
  })

  it('reads a path, a file, data and http URL, and bytes alike', async () => {
    const bytes = await readFile(path('plain.mov'))
    const server = createServer((_, response) => response.end(bytes)).listen(0, '127.0.0.1')
    await new Promise((done) => server.once('listening', done))
    const url = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/film`)
    const data = `data:video/quicktime;base64,${bytes.toString('base64')}`
    const array = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer
    const sources = [path('plain.mov'), pathToFileURL(path('plain.mov')), url, data, bytes, array, new Blob([array])]
    const before = await readdir(tmpdir())
    for (const source of sources) {
      const film = await orThrow(openFilm(source))
      assert.deepEqual((await framesAt(film, [3, 7])).map(indexIn), [3, 7])
    }
    server.closeAllConnections()
    server.close()
    const left = (await readdir(tmpdir())).filter((name) => name.startsWith('internvl-film-') && !before.includes(name))
    assert.deepEqual(left, [])
  })

  it('names a film that is none, has no pictures, is cut short or damaged', async () => {
    for (const name of await readdir(films)) {
      if (/json|m4a|m2ts/.test(name)) continue // a transport stream may begin and end anywhere
      const bytes = await readFile(path(name))
      for (const share of [0.3, 0.6, 0.97]) {
        const said = await wrong(bytes.subarray(0, Math.floor(bytes.length * share)))
        assert.match(said, /^Buffer: (the film is cut short|not a film)/, `${share} of ${name}`)
      }
    }
    const damaged = await readFile(path('b-frames.mp4'))
    damaged.fill(0, damaged.length - 1200, damaged.length - 900)
    assert.match(await wrong(damaged), /^Buffer: frame \d+ of 60 could not be decoded; the film is damaged\.$/)
    assert.match(await wrong(path('sound.m4a')), /sound\.m4a: no stream of pictures/)
    assert.match(await wrong(path('films.json')), /films\.json: not a film that can be read/)
    assert.match(await wrong(path('nothing.mp4')), /nothing\.mp4: no such film/)
    assert.match(await wrong(new Uint8Array(0)), /Buffer: the film is empty/)
    const fragments = await readFile(path('no-index.mp4')) // its frames all lie in fragments
    assert.match(await wrong(fragments.subarray(0, fragments.indexOf('moof') - 4)), /^Buffer: a film of zero frames/)
    assert.match(await wrong('http://['), /^http:\/\/\[: could not be fetched: Invalid URL/)
    assert.match(await wrong('file://elsewhere/film.mp4'), /^file:\/\/elsewhere\/film\.mp4: no path on this machine/)
    assert.match(await wrong('data:video/mp4,%00%ff'), /^data URL: not a film/)
    await assert.rejects(orThrow(openFilmFile(path('one.mp4'), {}, [])), /node-av.*ffmpeg and ffprobe/)
  })

  it('opens no file that a film names', async () => {
    for (const list of [
      `#EXTM3U\n#EXTINF:1,\n${path('one.mp4')}\n#EXT-X-ENDLIST\n`,
      `ffconcat version 1.0\nfile '${path('one.mp4')}'\n`
    ]) {
      await writeFile(join(dir, 'list.mp4'), list)
      assert.match(await wrong(join(dir, 'list.mp4')), /not a film that can be read/)
    }
  })

  it('gives the same frames with the ffmpeg of the machine', async function () {
    try {
      for (const program of ['ffmpeg', 'ffprobe']) execFileSync(program, ['-version'])
    } catch {
      this.skip()
    }
    for (const name of ['b-frames.mp4', 'no-index.mp4', 'rotated.mp4', 'odd.webm', 'plain.gif', 'bt709.mp4']) {
      const film = await orThrow(openFilm(path(name)))
      const own = await orThrow(openFilmFile(path(name), {}, [ffmpeg]))
      assert.equal(own.totalNumFrames, film.totalNumFrames, name)
      const indices = allOf(film).filter((i) => i % 5 === 1)
      for (const [i, frame] of (await framesAt(own, indices)).entries()) {
        const [other] = (await framesAt(film, [indices[i]!])) as [Rgb]
        const worst = blocks(frame).flatMap((colour, k) => colour.map((value, c) => Math.abs(value - blocks(other)[k]![c]!)))
        assert.ok(Math.max(...worst) <= 1, `${name}: frame ${indices[i]}`)
      }
    }
  })

  it('turns: four quarters are none, two are a half, and no pixel is lost', () => {
    const pictures = fc.tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 5 })).map(([width, height]) => ({
      data: Uint8Array.from({ length: width * height * 3 }, (_, i) => i),
      ...{ width, height }
    }))
    fc.assert(
      fc.property(pictures, fc.integer({ min: 0, max: 3 }), (picture, turns) => {
        const oneByOne = Array.from({ length: turns }).reduce<Rgb>((turned) => rotate(turned, 1), picture)
        assert.deepEqual(oneByOne, rotate(picture, turns))
        assert.deepEqual(rotate(rotate(picture, turns), (4 - turns) % 4), picture)
      })
    )
  })

  it('counts tokens and prepares tiles of a film by path, and the demo model tells what happens in it', async () => {
    const processor = await orThrow(loadProcessor(demo))
    const content = [
      { type: 'video', path: path('demo.mp4') },
      { type: 'text', text: 'What happens in this video?' }
    ] as const
    const messages = [[{ role: 'user', content }]] as const
    const inputs = await orThrow(processor.prepare(messages, { numFrames: 3 }))
    assert.deepEqual(inputs.numPatches, [3])
    assert.deepEqual(await orThrow(processor.countTokens(messages[0], { numFrames: 3 })), inputs.inputIds.shape[1])
    tf.dispose([inputs.inputIds, inputs.attentionMask, inputs.pixelValues!])
    await assert.rejects(orThrow(processor.prepare(messages, { numFrames: 4 })), /`num_frames=4` exceeds `total_num_frames=3`/)
    const { texts } = await answer(await load(), messages)
    assert.deepEqual(texts, ['The orange circle moves up.'])
  })
})
