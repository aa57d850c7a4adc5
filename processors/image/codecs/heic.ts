import type { ImageCodec } from './codec.js'
import { fromChannels, openSharp } from './sharp-image.js'

interface HeifImage {
  readonly get_width: () => number
  readonly get_height: () => number
  readonly is_primary: () => boolean
  readonly display: (
    target: { readonly data: Uint8ClampedArray; readonly width: number; readonly height: number },
    done: (result: { readonly data: Uint8ClampedArray } | null) => void
  ) => void
  readonly free: () => void
}

export interface LibHeif {
  readonly HeifDecoder: new () => { readonly decode: (bytes: Uint8Array) => readonly HeifImage[] }
}

let loading: Promise<LibHeif> | undefined
const load = async (): Promise<LibHeif> => (await import('libheif-js/wasm-bundle.js')).default

const pixelsOf = async (image: HeifImage, width: number, height: number): Promise<Uint8ClampedArray> => {
  const data = new Uint8ClampedArray(width * height * 4)
  const result = await new Promise<{ readonly data: Uint8ClampedArray } | null>((done) =>
    image.display({ data, width, height }, done)
  )
  if (result === null) throw new Error('libheif cannot decode it')
  return result.data
}

/** HEIC (the photos of iPhones) by libheif in WebAssembly, since sharp's libheif decodes AVIF alone. Rotations of the file are applied. */
export const heic: ImageCodec = {
  format: 'heic',
  // libheif of sharp reads every container, and the container tells the upright size
  header: async (bytes) => {
    const { width, height, pages } = await openSharp(bytes).metadata()
    return { width, height, frames: pages ?? 1 }
  },
  decode: async (bytes) => {
    loading ??= load()
    const images = new (await loading).HeifDecoder().decode(bytes)
    try {
      const image = images.find((candidate) => candidate.is_primary()) ?? images[0]
      if (!image) throw new Error('libheif finds no image in it')
      const [width, height] = [image.get_width(), image.get_height()]
      return { data: fromChannels(await pixelsOf(image, width, height), width * height, 4), width, height }
    } finally {
      for (const image of images) image.free()
    }
  }
}
