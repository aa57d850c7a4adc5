import * as E from 'fp-ts/lib/Either.js'
import { type Issues, invalid, valueText } from '../../lib/error.js'
import { RESAMPLE, resize, resizeTorchvision } from './resize.js'

/**
 * Libraries that Transformers resizes images with: torchvision by default, for every class and `use_fast` of the checkpoint's files, and
 * Pillow on request. Of a photograph their 8-bit values differ by up to 2 levels.
 */
export const IMAGE_BACKENDS = ['torchvision', 'pillow'] as const
export type ImageBackend = (typeof IMAGE_BACKENDS)[number]

/** The resize of each backend. */
export const RESIZES = { torchvision: resizeTorchvision, pillow: resize } as const satisfies Record<ImageBackend, typeof resize>

export const isImageBackend = (name: unknown): name is ImageBackend => IMAGE_BACKENDS.includes(name as ImageBackend)

/** The backend of an option. Errors: another name. */
export const checkedBackend = (name: unknown): E.Either<Issues, ImageBackend> =>
  isImageBackend(name)
    ? E.right(name)
    : invalid('Option', `imageBackend: expected ${IMAGE_BACKENDS.join(' or ')}, got ${valueText(name)}.`)

/** Errors: a backend that does not exist, and a filter that torchvision does not have. */
export const checkBackend = (name: unknown, resample: number): E.Either<Issues, ImageBackend> =>
  name === 'torchvision' && resample > RESAMPLE.bicubic
    ? invalid('Option', `resample: torchvision has no filter ${resample}; take 0 to 3, or for images imageBackend 'pillow'.`)
    : checkedBackend(name)
