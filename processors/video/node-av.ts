import { setImmediate } from 'node:timers/promises'
import type { CodecContext, FormatContext, Frame, Packet, Stream } from 'node-av/lib'
import type { Rgb } from '../image/resize.js'
import { type Av, loadAv } from '../media/load-av.js'
import { rgbConverter } from './rgb-filter.js'
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

interface Input {
  readonly format: FormatContext
  readonly stream: Stream
}

/** Opens a video's best video stream and discards the packets of all other streams. Otherwise returns the end of an error sentence. */
const openInput = async (av: Av, path: string): Promise<Input | string> => {
  const format = new av.FormatContext()
  format.allocContext()
  const options = av.Dictionary.fromObject({ format_whitelist: DEMUXERS, protocol_whitelist: 'file' })
  const opened = await format.openInput(`file:${path}`, null, options)
  options.free()
  if (opened < 0) return notAVideo(av.FFmpegError.strerror(opened))
  await format.findStreamInfo(null)
  const index = format.findBestStream(av.AVMEDIA_TYPE_VIDEO)
  const stream = format.streams[index]
  if (stream && !stream.hasDisposition(av.AV_DISPOSITION_ATTACHED_PIC)) {
    for (const other of format.streams) if (other.index !== index) other.discard = av.AVDISCARD_ALL
    return { format, stream }
  }
  await format.closeInput()
  return NO_VIDEO_STREAM
}

const timeOf = (av: Av, time: bigint): number | undefined => (time === av.AV_NOPTS_VALUE ? undefined : Number(time))

/** Whether a VP8 packet is a hidden reference frame. torchcodec counts such packets but has no frame for them. Source: RFC 6386, 9.1. */
const isHidden = ({ data }: Packet): boolean => data !== null && ((data[0] ?? 0) & 0x10) === 0

const BATCH = 500 // packets between two yields to the event loop, about 10 milliseconds

const readPackets = async (av: Av, { format, stream }: Input): Promise<FramePacket[] | string> => {
  const packets: FramePacket[] = []
  const isVp8 = stream.codecpar.codecId === av.AV_CODEC_ID_VP8
  const packet = new av.Packet()
  packet.alloc()
  try {
    for (let n = 0; ; n++) {
      if (n % BATCH === 0) await setImmediate()
      const read = format.readFrameSync(packet)
      if (read === av.AVERROR_EOF) return packets
      if (read < 0) return `damaged after ${packets.length} frames (${av.FFmpegError.strerror(read)})`
      const { flags, streamIndex, pts, duration, isKeyframe: isKey } = packet
      const isShown = !(flags & av.AV_PKT_FLAG_DISCARD) && !(isVp8 && isHidden(packet))
      packet.unref()
      if (streamIndex !== stream.index) continue
      if (flags & av.AV_PKT_FLAG_CORRUPT) return `truncated or damaged at frame ${packets.length}`
      if (isShown) packets.push({ pts: timeOf(av, pts), duration: Number(duration), isKey })
    }
  } finally {
    packet.free()
  }
}

/** Counterclockwise degrees of a display matrix of nine 32-bit words. Source: `av_display_rotation_get`. */
const degreesOf = (matrix: Buffer | null): number => {
  if (!matrix || matrix.length < 36) return 0
  const at = (word: number) => matrix.readInt32LE(4 * word)
  const [x, y] = [Math.hypot(at(0), at(3)), Math.hypot(at(1), at(4))]
  return x === 0 || y === 0 ? 0 : (-Math.atan2(at(1) / y, at(0) / x) * 180) / Math.PI
}

const probe = async (path: string): Promise<VideoProbe | string> => {
  const av = await loadAv()
  if (!av) return 'unavailable'
  const input = await openInput(av, path)
  if (typeof input === 'string') return input
  try {
    const packets = await readPackets(av, input)
    if (typeof packets === 'string') return packets
    const { codecpar, timeBase, avgFrameRate } = input.stream
    return {
      width: codecpar.width,
      height: codecpar.height,
      quarterTurns: quarterTurnsOf(degreesOf(codecpar.getCodedSideData(av.AV_PKT_DATA_DISPLAYMATRIX))),
      timeBase: [timeBase.num, timeBase.den],
      packets,
      rate: avgFrameRate.num > 0 ? avgFrameRate.num / avgFrameRate.den : undefined
    }
  } finally {
    await input.format.closeInput()
  }
}

interface Decoder extends Input {
  readonly codec: CodecContext
  readonly packet: Packet
  readonly frame: Frame
  readonly rgb: ReturnType<typeof rgbConverter>
}

/** Decoder threads. Each thread buffers frames, so four are used for small frames and one from 1280 x 720 on. */
const threadsFor = (width: number, height: number): number => Math.max(1, Math.min(4, Math.floor(1_250_000 / (width * height))))

const openDecoder = async (av: Av, input: Input): Promise<Decoder | undefined> => {
  const found = av.Codec.findDecoder(input.stream.codecpar.codecId)
  if (!found) return undefined
  const codec = new av.CodecContext()
  codec.allocContext3(found)
  codec.parametersToContext(input.stream.codecpar)
  codec.pktTimebase = input.stream.timeBase
  codec.threadCount = threadsFor(input.stream.codecpar.width, input.stream.codecpar.height)
  if ((await codec.open2(found, null)) < 0) return undefined
  const [packet, frame] = [new av.Packet(), new av.Frame()]
  packet.alloc()
  frame.alloc()
  return { ...input, codec, packet, frame, rgb: rgbConverter(av) }
}

/** Decodes every frame from the key frame at `seek` on into `frame`; yields its time and its index since the seek. */
async function* decode(av: Av, { format, stream, codec, packet, frame }: Decoder, seek: bigint | undefined) {
  if (seek !== undefined) {
    await format.seekFile(stream.index, -(2n ** 62n), seek, seek)
    codec.flushBuffers()
  }
  let count = 0
  for (let atEnd = false; !atEnd; ) {
    atEnd = (await format.readFrame(packet)) < 0
    if (atEnd) await codec.sendPacket(null)
    else if (packet.streamIndex === stream.index) await codec.sendPacket(packet)
    packet.unref()
    while ((await codec.receiveFrame(frame)) >= 0) yield { time: timeOf(av, frame.bestEffortTimestamp), count: count++ }
  }
}

type Decoded = { readonly time: number | undefined; readonly count: number }

const isBefore = ({ time, count }: Decoded, { pts, index }: FrameTarget): boolean =>
  pts === undefined ? count < index : time === undefined || time < pts
const isAt = ({ time, count }: Decoded, { pts, index }: FrameTarget): boolean =>
  pts === undefined ? count === index : time === pts

/** Decodes on without seeking where no key frame lies in between; where a seek lands behind the target, restarts at the first frame. */
async function* decodeTargets(av: Av, decoder: Decoder, first: number, targets: readonly FrameTarget[]) {
  let frames = decode(av, decoder, undefined)
  let current: Decoded | undefined
  const advance = async (target: FrameTarget): Promise<boolean> => {
    while (current === undefined || isBefore(current, target)) {
      const next = await frames.next()
      if (next.done) return false
      current = next.value
    }
    return isAt(current, target)
  }
  const advanceFrom = async (target: FrameTarget, seek: number): Promise<boolean> => {
    frames = decode(av, decoder, BigInt(seek))
    current = (await frames.next()).value ?? undefined
    const isLate = seek !== first && (current === undefined || !(isBefore(current, target) || isAt(current, target)))
    return isLate ? advanceFrom(target, first) : advance(target)
  }
  for (const target of targets) {
    const { seek } = target
    const isBehind = seek !== undefined && (current?.time === undefined || current.time < seek)
    yield (await (isBehind ? advanceFrom(target, seek) : advance(target))) ? await decoder.rgb.convert(decoder.frame) : undefined
  }
}

async function* frames(path: string, { packets }: VideoProbe, targets: readonly FrameTarget[]): AsyncGenerator<Rgb | undefined> {
  const av = await loadAv()
  const input = av && (await openInput(av, path))
  if (!av || !input || typeof input === 'string') return yield undefined
  const decoder = await openDecoder(av, input)
  try {
    if (decoder) yield* decodeTargets(av, decoder, packets[0]?.pts ?? 0, targets)
    else yield undefined
  } finally {
    decoder?.frame.free()
    decoder?.packet.free()
    decoder?.rgb.free()
    decoder?.codec.freeContext()
    await input.format.closeInput()
  }
}

/** Backend of the optional npm package node-av, which contains FFmpeg. */
export const nodeAv: VideoReader = { probe, frames }
