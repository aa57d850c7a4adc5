import type { FilterContext, FilterGraph, Frame } from 'node-av/lib'
import type { Rgb } from '../image/resize.js'
import type { Av } from '../media/load-av.js'

const [SCALE, FORMAT] = ['flags=bicubic', 'rgb24']

/** The conversion of torchcodec 0.17 to 8-bit RGB, as FFmpeg filters; exact for every pixel format, depth and size. */
export const RGB_FILTERS = `scale=${SCALE},format=${FORMAT}`

/** A filter graph for frames of one size, pixel format and colour space. */
interface Converter {
  readonly key: string
  readonly graph: FilterGraph
  readonly source: FilterContext
  readonly sink: FilterContext
}

const keyOf = ({ width, height, format, colorSpace, colorRange }: Frame): string =>
  [width, height, format, colorSpace, colorRange].join(':')

const open = async (av: Av, frame: Frame): Promise<Converter | undefined> => {
  const graph = new av.FilterGraph()
  graph.alloc()
  const { width, height, format, colorSpace, colorRange } = frame
  const size = `video_size=${width}x${height}:pix_fmt=${format}:colorspace=${colorSpace}:range=${colorRange}`
  const source = graph.createFilter(av.Filter.getByName('buffer')!, 'in', `${size}:time_base=1/1`)
  const scale = graph.createFilter(av.Filter.getByName('scale')!, 'scale', SCALE)
  const rgb = graph.createFilter(av.Filter.getByName('format')!, 'format', `pix_fmts=${FORMAT}`)
  const sink = graph.createFilter(av.Filter.getByName('buffersink')!, 'out')
  if (source && scale && rgb && sink) {
    const isLinked = source.link(0, scale, 0) >= 0 && scale.link(0, rgb, 0) >= 0 && rgb.link(0, sink, 0) >= 0
    if (isLinked && (await graph.config()) >= 0) return { key: keyOf(frame), graph, source, sink }
  }
  graph.free()
  return undefined
}

/** Converts decoded frames to RGB; the filter graph is kept while frames are alike. `free` releases it. */
export const rgbConverter = (av: Av) => {
  let current: Converter | undefined
  const converterFor = async (frame: Frame): Promise<Converter | undefined> => {
    if (current?.key === keyOf(frame)) return current
    current?.graph.free()
    current = await open(av, frame)
    return current
  }
  return {
    convert: async (frame: Frame): Promise<Rgb | undefined> => {
      // torchcodec converts interlaced frames as a whole, the filter would convert each field
      frame.clearFlags(av.AV_FRAME_FLAG_INTERLACED)
      const converter = await converterFor(frame)
      const rgb = new av.Frame()
      rgb.alloc()
      try {
        if (!converter || (await converter.source.buffersrcAddFrame(frame, av.AV_BUFFERSRC_FLAG_KEEP_REF)) < 0) return undefined
        if ((await converter.sink.buffersinkGetFrame(rgb)) < 0) return undefined
        const { buffer, byteOffset, length } = rgb.toBuffer() // toBuffer copies
        return { data: new Uint8Array(buffer, byteOffset, length), width: rgb.width, height: rgb.height }
      } finally {
        rgb.free()
      }
    },
    free: (): void => current?.graph.free()
  }
}
