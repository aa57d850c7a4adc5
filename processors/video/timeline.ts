import type { Rgb } from '../image/resize.js'

/** One encoded frame. `pts` is its presentation time in units of the time base, undefined where the container has none. */
export interface FramePacket {
  readonly pts: number | undefined
  readonly duration: number
  readonly isKey: boolean
}

/** Result of reading a video's packets without decoding. `width` and `height` are those of the stored frames, before rotation. */
export interface VideoProbe {
  readonly width: number
  readonly height: number
  /** Counterclockwise quarter turns that make a frame upright. */
  readonly quarterTurns: number
  /** Seconds per time unit, as a fraction. */
  readonly timeBase: readonly [num: number, den: number]
  /** In file order (decoding order). */
  readonly packets: readonly FramePacket[]
  /** Frames per second from the container's header, for files whose packets have no usable times. */
  readonly rate: number | undefined
}

/** A frame to decode, found by its presentation time, or by counting from the first frame where packets have no times. */
export interface FrameTarget {
  readonly index: number
  readonly pts: number | undefined
  /** Time of the key frame to seek to; undefined is the start of the video. */
  readonly seek: number | undefined
}

/** A backend that reads video files. */
export interface VideoReader {
  /** Reads the packets. Otherwise returns the end of an error sentence, or 'unavailable' where the backend is not installed. */
  readonly probe: (path: string) => Promise<VideoProbe | string>
  /** Decodes the frames at rising targets, without rotation; undefined for a frame that cannot be decoded. */
  readonly frames: (path: string, reading: VideoProbe, targets: readonly FrameTarget[]) => AsyncIterable<Rgb | undefined>
}

/** FFmpeg demuxers that are allowed. Playlists and other formats that open further files are excluded. */
export const DEMUXERS = 'mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,gif,avi,mpegts,flv,asf,ogg,apng,mpeg,mpegvideo,dv,mxf,ivf'

/** Error text for a file that FFmpeg cannot open. */
export const notAVideo = (why: string): string =>
  `not a readable video (${why}); use mp4, mov, webm, mkv, gif, avi, ts, mpg, flv, wmv, ogv or apng`

export const NO_VIDEO_STREAM = 'the file has no video stream; it may contain audio only'

/** Quarter turns that undo a display matrix's rotation, given as counterclockwise degrees. */
export const quarterTurnsOf = (degrees: number): number => ((Math.round(degrees / 90) % 4) + 4) % 4

/** The frames of a video in presentation order. */
export interface Timeline {
  readonly totalNumFrames: number
  readonly fps: number | undefined
  readonly target: (index: number) => FrameTarget
}

/**
 * Presentation order of a video's frames, from its packets.
 *
 * Source: `scanFileAndUpdateMetadataAndIndex`, `average_fps` (torchcodec 0.17): number of frames over the time from the first frame to the end.
 */
export const timelineOf = ({ packets, timeBase: [num, den], rate }: VideoProbe): Timeline => {
  const totalNumFrames = packets.length
  const times = new Set(packets.map(({ pts }) => pts))
  if (times.has(undefined) || times.size < totalNumFrames)
    return { totalNumFrames, fps: rate, target: (index) => ({ index, pts: undefined, seek: undefined }) }
  const ordered = packets.toSorted((a, b) => a.pts! - b.pts!)
  const seconds = (units: number): number => (units * num) / den
  const end = ordered.reduce((latest, { pts, duration }) => Math.max(latest, pts! + duration), Number.NEGATIVE_INFINITY)
  const span = seconds(end) - seconds(ordered[0]!.pts!)
  const target = (index: number): FrameTarget => {
    let key = index
    while (key >= 0 && !ordered[key]!.isKey) key--
    const from = ordered[key]
    return { index, pts: ordered[index]!.pts, seek: from === packets[0] ? undefined : from?.pts }
  }
  return { totalNumFrames, fps: span > 0 ? totalNumFrames / span : rate, target }
}

/** Rotates an image counterclockwise by quarter turns. */
export const rotate = ({ data, width, height }: Rgb, quarterTurns: number): Rgb => {
  if (quarterTurns === 0) return { data, width, height }
  const swapsSides = quarterTurns % 2 === 1
  const out = new Uint8Array(data.length)
  const [w, h] = swapsSides ? [height, width] : [width, height]
  for (let y = 0; y < h; y++)
    for (let x = 0; x < w; x++) {
      const [fromX, fromY] =
        quarterTurns === 1 ? [width - 1 - y, x] : quarterTurns === 2 ? [width - 1 - x, height - 1 - y] : [y, height - 1 - x]
      const from = (fromY * width + fromX) * 3
      out.set(data.subarray(from, from + 3), (y * w + x) * 3)
    }
  return { data: out, width: w, height: h }
}
