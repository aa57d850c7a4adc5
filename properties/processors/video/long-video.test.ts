import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { AVERROR_EOF } from 'node-av/constants'
import { FormatContext, Packet } from 'node-av/lib'
import { getOrThrow, orThrow } from '../../../lib/error.js'
import { openFilm } from '../../../processors/video/video.js'

const film = fileURLToPath(new URL('../films/b-frames.mp4', import.meta.url))
const root = fileURLToPath(new URL('../../..', import.meta.url))
const [frames, copies] = [60, 1800] // an hour at 30 frames a second

/** A film over and over: its packets once more, later each time. */
const repeat = async (from: string, to: string, times: number): Promise<void> => {
  const [input, output, packet] = [new FormatContext(), new FormatContext(), new Packet()]
  packet.alloc()
  input.allocContext()
  await input.openInput(from, null, null)
  await input.findStreamInfo(null)
  const [source] = input.streams
  output.allocOutputContext2(null, 'mp4', to)
  const stream = output.newStream(null)
  source!.codecpar.copy(stream.codecpar)
  stream.timeBase = source!.timeBase
  await output.openOutput()
  await output.writeHeader(null)
  const packets: Packet[] = []
  while (input.readFrameSync(packet) !== AVERROR_EOF) packets.push(packet.clone()!)
  const length = packets.reduce((n, { duration }) => n + duration, 0n)
  for (let i = 0; i < times; i++)
    for (const one of packets) {
      packet.ref(one)
      packet.pts = one.pts + BigInt(i) * length
      packet.dts = one.dts + BigInt(i) * length
      output.interleavedWriteFrameSync(packet)
    }
  await output.writeTrailer()
  await output.closeOutput()
  await input.closeInput()
}

/** What a process that takes 8 frames of a film says of them: their brightness, and its greatest memory in MiB. */
const take = async (
  path: string
): Promise<{ readonly total: number; readonly sums: readonly number[]; readonly peak: number }> => {
  const script = `
    const { openFilm, frameIndices } = await import('./processors/video/video.ts')
    const film = (await openFilm(process.argv[1])()).right
    const indices = frameIndices(film, { numFrames: 8, initialShift: true }).right
    const sums = []
    for await (const { right } of film.frames(indices)) sums.push(right.data.reduce((a, b) => a + b, 0))
    console.log(JSON.stringify({ total: film.totalNumFrames, sums, peak: process.resourceUsage().maxRSS / 1024 }))`
  const args = ['--import', 'tsx', '--input-type=module', '-e', script, path]
  return JSON.parse((await promisify(execFile)(process.execPath, args, { cwd: root })).stdout)
}

const sumOf = (data: Uint8Array): number => data.reduce((a, b) => a + b, 0)

describe('a film of an hour', () => {
  it('gives 8 frames in little more memory than one of two seconds, and they are the right ones', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'internvl-hour-'))
    try {
      const path = join(dir, 'hour.mp4')
      await repeat(film, path, copies)
      const [long, short] = [await take(path), await take(film)]
      assert.equal(long.total, frames * copies)
      const step = long.total / 8
      const expected = Array.from({ length: 8 }, (_, i) => Math.trunc(step / 2 + i * step) % frames)
      const shown: number[] = []
      const { frames: decoded } = await orThrow(openFilm(film))
      for await (const frame of decoded(Array.from({ length: frames }, (_, i) => i))) shown.push(sumOf(getOrThrow(frame).data))
      assert.deepEqual(
        long.sums,
        expected.map((index) => shown[index])
      )
      assert.ok(long.peak < short.peak + 100, `${long.peak} MiB, ${short.peak} for the short one`)
    } finally {
      await rm(dir, { recursive: true })
    }
  })
})
