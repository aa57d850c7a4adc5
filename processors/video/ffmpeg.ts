import { execFile } from 'node:child_process'
import type { Rgb } from '../image/resize.js'
import { RGB_FILTERS } from './rgb-filter.js'
import {
  DEMUXERS,
  type FramePacket,
  type FrameTarget,
  NO_VIDEO_STREAM,
  notAVideo,
  quarterTurnsOf,
  type VideoProbe,
  type VideoReader
} from './timeline.js'

interface Output {
  readonly stdout: Buffer
  readonly stderr: string
  readonly failed: boolean
}

/** Output of a program; undefined where the program is not installed. */
const run = (program: string, args: readonly string[]): Promise<Output | undefined> =>
  new Promise((resolve) => {
    execFile(program, args, { encoding: 'buffer', maxBuffer: 2 ** 30 }, (error, stdout, stderr) =>
      resolve(error?.code === 'ENOENT' ? undefined : { stdout, stderr: stderr.toString().trim(), failed: error !== null })
    )
  })

const input = (path: string): readonly string[] => [
  '-format_whitelist',
  DEMUXERS,
  '-protocol_whitelist',
  'file',
  '-i',
  `file:${path}`
]

interface Probed {
  readonly streams?: readonly {
    readonly width: number
    readonly height: number
    readonly time_base: string
    readonly avg_frame_rate: string
    readonly side_data_list?: readonly { readonly rotation?: number }[]
  }[]
  readonly packets?: readonly { readonly pts?: number; readonly duration?: number; readonly flags: string }[]
}

const ENTRIES = 'stream=width,height,time_base,avg_frame_rate:stream_side_data=rotation:packet=pts,duration,flags'
const PROBE = ['-v', 'error', '-select_streams', 'V:0', '-show_entries', ENTRIES, '-of', 'json=compact=1'] as const

const fraction = (text: string): readonly [number, number] => {
  const [num = 0, den = 1] = text.split('/').map(Number)
  return [num, den]
}

const probe = async (path: string): Promise<VideoProbe | string> => {
  const [probed, decoder] = await Promise.all([run('ffprobe', [...PROBE, ...input(path)]), run('ffmpeg', ['-version'])])
  if (!probed || !decoder) return 'unavailable'
  if (probed.failed) return notAVideo(probed.stderr.split('\n').at(-1)!.replace(`file:${path}: `, '') || 'ffprobe failed')
  const { streams: [stream] = [], packets = [] } = JSON.parse(probed.stdout.toString()) as Probed
  if (!stream) return NO_VIDEO_STREAM
  const corrupt = packets.findIndex(({ flags }) => flags.includes('C'))
  if (corrupt >= 0) return `truncated or damaged at frame ${corrupt}`
  const [num, den] = fraction(stream.avg_frame_rate)
  const rotation = stream.side_data_list?.find((data) => data.rotation !== undefined)?.rotation ?? 0
  return {
    width: stream.width,
    height: stream.height,
    quarterTurns: quarterTurnsOf(rotation),
    timeBase: fraction(stream.time_base),
    rate: num > 0 && den > 0 ? num / den : undefined,
    packets: packets
      .filter(({ flags }) => !flags.includes('D'))
      .map(({ pts, duration = 0, flags }): FramePacket => ({ pts, duration, isKey: flags.includes('K') }))
  }
}

const frameAt = async (path: string, reading: VideoProbe, { index, pts, seek }: FrameTarget): Promise<Rgb | undefined> => {
  const { width, height, timeBase } = reading
  // half a time unit early may select one key frame earlier, never one later
  const seconds = seek === undefined ? undefined : ((seek - 0.5) * timeBase[0]) / timeBase[1]
  const from = seconds === undefined ? [] : ['-seek_timestamp', '1', '-noaccurate_seek', '-ss', seconds.toFixed(6)]
  const chosen = pts === undefined ? `eq(n\\,${index})` : `eq(pts\\,${pts})`
  const filters = `select=${chosen},${RGB_FILTERS}`
  const select = ['-map', '0:V:0', '-vf', filters, '-frames:v', '1', '-fps_mode', 'passthrough']
  const convert = ['-pix_fmt', 'rgb24', '-f', 'rawvideo', 'pipe:1']
  const args = ['-v', 'error', '-nostdin', '-noautorotate', ...from, '-copyts', ...input(path), ...select, ...convert]
  const output = await run('ffmpeg', args)
  return output?.stdout.length === width * height * 3 ? { data: new Uint8Array(output.stdout), width, height } : undefined
}

const SEEK_MARGIN = 10 // seconds: containers that seek by decoding time may land after the requested key frame

async function* frames(path: string, reading: VideoProbe, targets: readonly FrameTarget[]): AsyncGenerator<Rgb | undefined> {
  const [num, den] = reading.timeBase
  for (const target of targets) {
    const { seek } = target
    const starts = seek === undefined ? [undefined] : [seek, seek - Math.ceil((SEEK_MARGIN * den) / num), undefined]
    let frame: Rgb | undefined
    for (const start of starts) frame ??= await frameAt(path, reading, { ...target, seek: start })
    yield frame
  }
}

/** Backend of the installed ffmpeg and ffprobe programs; starts one process per frame. */
export const ffmpeg: VideoReader = { probe, frames }
