import type { Rgb } from '../image/resize.js'

/** One encoded frame, its time in units of the stream's time base; undefined where the container gives none. */
export interface FramePacket {
  readonly pts: number | undefined
  readonly duration: number
  readonly isKey: boolean
}

/** What is known of a film when its packets are read and nothing is decoded. Width and height are the stored ones. */
export interface Reading {
  readonly width: number
  readonly height: number
  /** Counterclockwise, to stand upright. */
  readonly quarterTurns: number
  /** Seconds in a unit of time, as a fraction. */
  readonly timeBase: readonly [num: number, den: number]
  /** In the order of the file. */
  readonly packets: readonly FramePacket[]
  /** The file's own frames a second, where times do not say. */
  readonly rate: number | undefined
}

/** A frame to decode: by its time when frames have times of their own, else by counting from the first. */
export interface Target {
  readonly index: number
  readonly pts: number | undefined
  /** Time of the key frame to begin at; the film's beginning when undefined. */
  readonly seek: number | undefined
}

/** A way to read film files. */
export interface FilmReader {
  /** The film's packets; what is wrong with it, as the end of a sentence; or 'unavailable' on this machine. */
  readonly probe: (path: string) => Promise<Reading | string>
  /** The frames at rising targets, not yet turned; undefined for one that cannot be decoded. */
  readonly frames: (path: string, reading: Reading, targets: readonly Target[]) => AsyncIterable<Rgb | undefined>
}

/** Demuxers of FFmpeg that films are read with; playlists and others that open further files are not among them. */
export const FORMATS = 'mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,gif,avi,mpegts'

/** What is said of a file that FFmpeg cannot open. */
export const notAFilm = (why: string): string => `not a film that can be read (${why}); use mp4, mov, webm, mkv, gif, avi or ts`

export const NO_PICTURES = 'no stream of pictures in it; it may hold sound alone'

/** Quarter turns that undo what a display matrix says, from its angle in degrees, counterclockwise. */
export const quarterTurnsOf = (degrees: number): number => ((Math.round(degrees / 90) % 4) + 4) % 4

/** A film's frames in the order in which they are shown. */
export interface Timeline {
  readonly totalNumFrames: number
  readonly fps: number | undefined
  readonly target: (index: number) => Target
}

/**
 * The order of a film's frames from its packets.
 *
 * Source: `scanFileAndUpdateMetadataAndIndex`, `average_fps` (torchcodec 0.17): frames over the time from first to end.
 */
export const timelineOf = ({ packets, timeBase: [num, den], rate }: Reading): Timeline => {
  const totalNumFrames = packets.length
  const times = new Set(packets.map(({ pts }) => pts))
  if (times.has(undefined) || times.size < totalNumFrames)
    return { totalNumFrames, fps: rate, target: (index) => ({ index, pts: undefined, seek: undefined }) }
  const shown = packets.toSorted((a, b) => a.pts! - b.pts!)
  const seconds = (units: number): number => (units * num) / den
  const end = shown.reduce((latest, { pts, duration }) => Math.max(latest, pts! + duration), Number.NEGATIVE_INFINITY)
  const span = seconds(end) - seconds(shown[0]!.pts!)
  const target = (index: number): Target => {
    let key = index
    while (key >= 0 && !shown[key]!.isKey) key--
    const from = shown[key]
    return { index, pts: shown[index]!.pts, seek: from === packets[0] ? undefined : from?.pts }
  }
  return { totalNumFrames, fps: span > 0 ? totalNumFrames / span : rate, target }
}

/** A picture turned counterclockwise. */
export const rotate = ({ data, width, height }: Rgb, quarterTurns: number): Rgb => {
  if (quarterTurns === 0) return { data, width, height }
  const turned = quarterTurns % 2 === 1
  const out = new Uint8Array(data.length)
  const [w, h] = turned ? [height, width] : [width, height]
  for (let y = 0; y < h; y++)
    for (let x = 0; x < w; x++) {
      const [fromX, fromY] =
        quarterTurns === 1 ? [width - 1 - y, x] : quarterTurns === 2 ? [width - 1 - x, height - 1 - y] : [y, height - 1 - x]
      const from = (fromY * width + fromX) * 3
      out.set(data.subarray(from, from + 3), (y * w + x) * 3)
    }
  return { data: out, width: w, height: h }
}
