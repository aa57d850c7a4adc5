import { readFileSync } from 'node:fs'
import type { ImageBackend } from '../../processors/image/image-backend.js'

interface Resize {
  readonly size: readonly [number, number]
  readonly to: readonly [number, number]
  readonly resample: number
  readonly torchvision: boolean
  readonly pixels: string
  readonly expected: string
}

interface Frames {
  readonly total: number
  readonly rate: number
  readonly numFrames: number | null
  readonly fps: number | null
  readonly initialShift: boolean | number
  readonly indices: readonly number[]
}

interface Item {
  readonly type: string
  readonly text?: string
  readonly path?: string
  readonly frames?: readonly string[]
}

interface Chat {
  readonly options: { readonly max_patches?: number; readonly crop_to_patches?: boolean; readonly do_normalize?: boolean }
  readonly backend: ImageBackend
  readonly batch: readonly (readonly { readonly role: string; readonly content: string | readonly Item[] }[])[]
  readonly prompts: readonly string[]
  readonly input_ids: readonly (readonly number[])[]
  readonly attention_mask: readonly (readonly number[])[]
  readonly shape: readonly number[]
  readonly mean: readonly (readonly number[])[]
  readonly std: readonly (readonly number[])[]
  readonly samples: readonly number[]
}

interface Cases {
  readonly resizes: readonly Resize[]
  readonly tile_counts: readonly (readonly [number, number, number, number, number])[]
  readonly frame_indices: readonly Frames[]
  readonly tokens: readonly (readonly [string, readonly number[]])[]
  readonly chats: readonly Chat[]
}

const urlOf = (name: string): URL => new URL(name, import.meta.url)

/** Reference results of Pillow, torchvision and Transformers 5.24; written by reference/make_processor_cases.py. */
export const cases = JSON.parse(readFileSync(urlOf('cases.json'), 'utf8')) as Cases

/** Path of an image written by reference/make_images.py. */
export const imagePath = (name: string): string => urlOf(`images/${name}`).pathname

/** Every image file with its pixels as read by Pillow. */
export const images = Object.entries(
  JSON.parse(readFileSync(urlOf('images/expected.json'), 'utf8')) as Record<
    string,
    { readonly width: number; readonly height: number; readonly rgb: string }
  >
).map(([name, { width, height, rgb }]) => ({ name, width, height, data: new Uint8Array(Buffer.from(rgb, 'base64')) }))

/** Folder of the demo checkpoint. */
export const demo = urlOf('../../models/demo').pathname
