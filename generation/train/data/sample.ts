import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as NEA from 'fp-ts/lib/NonEmptyArray.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { type Issue, type Issues, issue, whenValid } from '../../../lib/error.js'
import { ignoreIndex } from '../../../lib/nn/losses/cross-entropy.js'
import { random } from '../../../lib/random.js'
import { throughJpeg } from '../../../processors/image/draw.js'
import type { EncodedConversation, PrepareOptions, Processor } from '../../../processors/processor.js'
import { itemsOf, type Messages } from '../../../processors/text/messages.js'
import { imageContextId } from '../../../processors/text/placeholders.js'
import type { DatasetRow } from '../../evaluate/eval-dataset.js'

/** One encoded conversation as typed arrays, which can be sent between threads. */
export interface Sample {
  readonly id: string
  /** `[L]`, with the image token at the positions of images. */
  readonly ids: Int32Array
  /** `[L]`: the id at supervised positions (answers and the tokens that end them), −100 elsewhere. */
  readonly labels: Int32Array
  /** `[T, 3, height, width]`: the tiles of all images and videos, in order. */
  readonly pixels: Float32Array
  readonly tileSize: { readonly width: number; readonly height: number }
  /** Number of tiles of each image, and of frames of each video. */
  readonly numPatches: readonly number[]
}

/** Size of a sample in a batch. */
export interface SampleSize {
  readonly tokens: number
  /** Number of tiles of all images and frames of all videos. */
  readonly tiles: number
}

export interface SampleOptions extends PrepareOptions {
  /** Maximum number of tokens. Longer samples are truncated at the end, unless an image would be truncated. */
  readonly maxLength?: number
  /** Seed of the JPEG qualities (75 to 100) with which images are compressed before resizing. Default: no compression. */
  readonly jpegSeed?: number
}

/** Maximum number of tiles of an image when a sample holds several. Source: `multi_modal_multi_image_get_item` (OpenGVLab). */
const patchesPerImage = (messages: Messages, maxPatches: number): number => {
  const images = messages.flatMap((message) => itemsOf(message)).filter(({ type }) => type === 'image').length
  return images > 1 ? Math.max(1, Math.floor(maxPatches / images)) : maxPatches
}

/** Source: `jpeg_degrade` of 75 to 100, `T.RandomChoice` (OpenGVLab, dataset.py), which compresses after tiling. */
const jpegOfRandomQuality = (seed: number) => {
  const rng = random(seed)
  return (image: Parameters<typeof throughJpeg>[0]) => throughJpeg(image, rng.integer(75, 100))
}

/** Ids and labels truncated to `maxLength` tokens. Errors: an image or all answers would be truncated. */
const truncated = (
  { ids, labels }: EncodedConversation,
  maxLength: number,
  contextId: number | undefined
): E.Either<Issues, Pick<Sample, 'ids' | 'labels'>> => {
  const issues: Issue[] = []
  if (ids.indexOf(contextId ?? -1, maxLength) >= 0)
    issues.push(
      issue(
        'TooLong',
        `${ids.length} tokens: truncated to ${maxLength}, an image would be lost; reduce the number of tiles (maxPatches).`
      )
    )
  const keptLabels = labels.slice(0, maxLength)
  if (keptLabels.every((label) => label === ignoreIndex))
    issues.push(
      issue(
        'TooLong',
        `${ids.length} tokens: truncated to ${maxLength}, no token of the answer is left; increase the maximum length.`
      )
    )
  return whenValid(issues, () => ({ ids: Int32Array.from(ids.slice(0, maxLength)), labels: Int32Array.from(keptLabels) }))
}

/** The concatenated tiles of all images and videos. */
const readPixels = async ({ visuals }: EncodedConversation): Promise<E.Either<Issues, Float32Array>> => {
  const sizes = visuals.map(({ tiles, tileSize }) => tiles * 3 * tileSize.width * tileSize.height)
  const pixels = new Float32Array(sizes.reduce((a, b) => a + b, 0))
  const issues: Issue[] = []
  let offset = 0
  for (const [i, visual] of visuals.entries()) {
    const written = await visual.write(pixels, offset)()
    if (E.isLeft(written)) issues.push(...written.left)
    offset += sizes[i]!
  }
  return whenValid(issues, () => pixels)
}

/** Prefixes each error with the file and line of the row, or with its id. */
const inRow =
  ({ where, id }: DatasetRow) =>
  (issues: Issues): Issues =>
    pipe(
      issues,
      NEA.map((f) => ({ ...f, where: where ?? id, message: `${where ?? id}: ${f.message}` }))
    )

/** The ids and labels of a row, with its images opened but not decoded. */
interface Encoded {
  readonly text: Pick<Sample, 'ids' | 'labels'>
  readonly encoded: EncodedConversation
}

const encodeRow = (processor: Processor, row: DatasetRow, options: SampleOptions): TE.TaskEither<Issues, Encoded> => {
  const { maxLength = Number.POSITIVE_INFINITY, jpegSeed, ...given } = options
  const maxPatches = patchesPerImage(row.messages, given.maxPatches ?? processor.config.image.maxPatches)
  const retouch = jpegSeed === undefined ? undefined : jpegOfRandomQuality(jpegSeed)
  return pipe(
    processor.encode(row.messages, { ...given, maxPatches, retouch }),
    TE.chainEitherK((encoded) =>
      pipe(
        truncated(encoded, maxLength, imageContextId(processor.tokenizer)),
        E.map((text) => ({ text, encoded }))
      )
    ),
    TE.mapLeft(inRow(row))
  )
}

/**
 * Encodes a row as for inference, except that several images share the maximum number of tiles. Errors name the file and line of the row.
 * Source: `LazySupervisedDataset.__getitem__`, `preprocess_internvl2_5` (OpenGVLab).
 */
export const encodeSample = (processor: Processor, row: DatasetRow, options: SampleOptions = {}): TE.TaskEither<Issues, Sample> =>
  pipe(
    encodeRow(processor, row, options),
    TE.chain(({ text, encoded }) =>
      pipe(
        () => readPixels(encoded),
        TE.bimap(inRow(row), (pixels) => ({
          ...{ id: row.id, ...text, pixels, numPatches: encoded.visuals.map(({ tiles }) => tiles) },
          tileSize: encoded.visuals[0]?.tileSize ?? processor.config.image.size
        }))
      )
    )
  )

/** A preference pair: the same question and images with the chosen and the rejected answer. */
export interface Preference {
  readonly chosen: Sample
  readonly rejected: Sample
}

/** The row with the rejected answer as its last message. Throws a `RangeError` for a row without a rejected answer. */
const withRejected = (row: DatasetRow): DatasetRow => {
  if (row.rejected === undefined)
    throw new RangeError(`${row.where ?? row.id}: not a preference row, the rejected answer is missing`)
  return { ...row, messages: [...row.messages.slice(0, -1), { role: 'assistant', content: row.rejected }] }
}

const encodedSize = (processor: Processor, row: DatasetRow, options: SampleOptions): TE.TaskEither<Issues, SampleSize> =>
  pipe(
    encodeRow(processor, row, options),
    TE.map(({ text, encoded }) => ({
      tokens: text.ids.length,
      tiles: encoded.visuals.reduce((sum, { tiles }) => sum + tiles, 0)
    }))
  )

/**
 * The size of the sample that `encodeSample` makes; for a preference row the size with the longer answer. Only the headers of images are
 * read, so that damaged pixels are not detected. Errors: as `encodeSample`.
 */
export const sampleSize = (
  processor: Processor,
  row: DatasetRow,
  options: SampleOptions = {}
): TE.TaskEither<Issues, SampleSize> => {
  const size = encodedSize(processor, row, options)
  if (row.rejected === undefined) return size
  return pipe(
    size,
    TE.chain(({ tokens, tiles }) =>
      pipe(
        encodedSize(processor, withRejected(row), options),
        TE.map((rejected) => ({ tiles, tokens: Math.max(tokens, rejected.tokens) }))
      )
    )
  )
}

/** Encodes a preference row as two samples that share their pixels. */
export const encodePreference = (
  processor: Processor,
  row: DatasetRow,
  options: SampleOptions = {}
): TE.TaskEither<Issues, Preference> =>
  pipe(
    encodeSample(processor, row, options),
    TE.chain((chosen) =>
      pipe(
        encodeSample(processor, withRejected(row), options),
        TE.map((rejected) => ({ chosen, rejected: { ...rejected, pixels: chosen.pixels } }))
      )
    )
  )
