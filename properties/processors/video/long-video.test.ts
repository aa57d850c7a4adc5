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
import { openVideo } from '../../../processors/video/video.js'

const video = fileURLToPath(new URL('../videos/b-frames.mp4', import.meta.url))
const root = fileURLToPath(new URL('../../..', import.meta.url))
const [frames, copies] = [60, 1800] // an hour at 30 frames per second

/** Writes a video that repeats the packets of another with increasing times. */
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

/** Samples 8 frames in a separate process; returns the sum of each frame's pixels and the peak memory in MiB. */
const sampleInProcess = async (
  path: string
): Promise<{ readonly total: number; readonly sums: readonly number[]; readonly peak: number }> => {
  const script = `
    const { openVideo } = await import('./processors/video/video.ts')
    const { frameIndices } = await import('./processors/video/frame-sampling.ts')
    const video = (await openVideo(process.argv[1])()).right
    const indices = frameIndices(video, { numFrames: 8, initialShift: true }).right
    const sums = []
    for await (const { right } of video.frames(indices)) sums.push(right.data.reduce((a, b) => a + b, 0))
    console.log(JSON.stringify({ total: video.totalNumFrames, sums, peak: process.resourceUsage().maxRSS / 1024 }))`
  const args = ['--import', 'tsx', '--input-type=module', '-e', script, path]
  return JSON.parse((await promisify(execFile)(process.execPath, args, { cwd: root })).stdout)
}

const sumOf = (data: Uint8Array): number => data.reduce((a, b) => a + b, 0)

describe('a video of one hour', () => {
  it('sampling 8 frames needs little more memory than for a video of two seconds, and gives the right frames', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'internvl-hour-'))
    try {
      const path = join(dir, 'hour.mp4')
      await repeat(video, path, copies)
      const [long, short] = [await sampleInProcess(path), await sampleInProcess(video)]
      assert.equal(long.total, frames * copies)
      const step = long.total / 8
      const expected = Array.from({ length: 8 }, (_, i) => Math.trunc(step / 2 + i * step) % frames)
      const sums: number[] = []
      const { frames: decoded } = await orThrow(openVideo(video))
      for await (const frame of decoded(Array.from({ length: frames }, (_, i) => i))) sums.push(sumOf(getOrThrow(frame).data))
      assert.deepEqual(
        long.sums,
        expected.map((index) => sums[index])
      )
      assert.ok(long.peak < short.peak + 100, `${long.peak} MiB, ${short.peak} MiB for the short video`)
    } finally {
      await rm(dir, { recursive: true })
    }
  })
})
