import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { type Issue, type Issues, issue, whenValid } from '../../../lib/error.js'
import { ignored } from '../../../lib/nn/losses/cross-entropy.js'
import { random } from '../../../lib/random.js'
import { throughJpeg } from '../../../processors/image/draw.js'
import type { EncodedConversation, PrepareOptions, Processor } from '../../../processors/processor.js'
import { itemsOf, type Messages } from '../../../processors/text/messages.js'
import type { DatasetRow } from '../../evaluate/eval-dataset.js'

/** One conversation as numbers: it can be sent between threads, and belongs to nobody. */
export interface Sample {
  readonly id: string
  /** `[L]`, with `<IMG_CONTEXT>` where pictures stand. */
  readonly ids: Int32Array
  /** `[L]`: the id itself where it is learned (answers and what ends them), −100 elsewhere. */
  readonly labels: Int32Array
  /** `[T, 3, height, width]`: the tiles of all pictures and films, in order. */
  readonly pixels: Float32Array
  readonly tileSize: { readonly width: number; readonly height: number }
  /** Tiles of each picture, frames of each film. */
  readonly numPatches: readonly number[]
}

/** What a sample takes of a batch. */
export interface SampleSize {
  readonly tokens: number
  /** Tiles of its pictures and frames of its films. */
  readonly tiles: number
}

export interface SampleOptions extends PrepareOptions {
  /** Tokens of a sample at most; what goes beyond is cut off at the end, but never a picture. */
  readonly maxLength?: number
  /** Seed of the JPEG qualities that its pictures are spoilt with before they are resized, 75 to 100; none unless given. */
  readonly jpegSeed?: number
}

/** Tiles a picture may have when several share a sample. Source: `multi_modal_multi_image_get_item` (OpenGVLab). */
const patchesEach = (messages: Messages, most: number): number => {
  const images = messages.flatMap((message) => itemsOf(message)).filter(({ type }) => type === 'image').length
  return images > 1 ? Math.max(1, Math.floor(most / images)) : most
}

/** Source: `jpeg_degrade` of 75 to 100, `T.RandomChoice` (OpenGVLab, dataset.py); there after the picture is cut into tiles. */
const jpegOfRandomQuality = (seed: number) => {
  const rng = random(seed)
  return (image: Parameters<typeof throughJpeg>[0]) => throughJpeg(image, rng.integer(75, 100))
}

/** Ids and labels of `maxLength` tokens at most. Errors: a picture or all answers would be cut off. */
const shortened = (
  { ids, labels }: EncodedConversation,
  maxLength: number,
  contextId: number | undefined
): E.Either<Issues, Pick<Sample, 'ids' | 'labels'>> => {
  const wrong: Issue[] = []
  if (ids.indexOf(contextId ?? -1, maxLength) >= 0)
    wrong.push(
      issue('TooLong', `${ids.length} tokens: cut to ${maxLength}, a picture would be lost; fewer tiles help (maxPatches).`)
    )
  const kept = labels.slice(0, maxLength)
  if (kept.every((label) => label === ignored))
    wrong.push(issue('TooLong', `${ids.length} tokens: cut to ${maxLength}, nothing of the answer is left to learn.`))
  return whenValid(wrong, () => ({ ids: Int32Array.from(ids.slice(0, maxLength)), labels: Int32Array.from(kept) }))
}

/** The tiles of all pictures behind one another. */
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

/** The same errors, each beginning with the row's file and line, or its number. */
const at = ({ where, id }: DatasetRow) =>
  E.mapLeft((issues: Issues): Issues => {
    const [first, ...rest] = issues.map((f) => ({ ...f, where: where ?? id, message: `${where ?? id}: ${f.message}` }))
    return [first!, ...rest]
  })

/** A row's text as ids, and its pictures opened, but not read. */
interface Encoded {
  readonly text: Pick<Sample, 'ids' | 'labels'>
  readonly encoded: EncodedConversation
}

const encodeRow = async (processor: Processor, row: DatasetRow, options: SampleOptions): Promise<E.Either<Issues, Encoded>> => {
  const { maxLength = Number.POSITIVE_INFINITY, jpegSeed, ...given } = options
  const { image } = processor.config
  const maxPatches = patchesEach(row.messages, given.maxPatches ?? image.maxPatches)
  const retouch = jpegSeed === undefined ? undefined : jpegOfRandomQuality(jpegSeed)
  const encoded = await processor.encode(row.messages, { ...given, maxPatches, retouch })()
  if (E.isLeft(encoded)) return encoded
  const { tokenizer } = processor
  const context = tokenizer.idOf(tokenizer.names.context_image_token ?? '<IMG_CONTEXT>')
  const text = shortened(encoded.right, maxLength, context)
  return E.map((kept: Encoded['text']) => ({ text: kept, encoded: encoded.right }))(text)
}

const readRow = async (processor: Processor, row: DatasetRow, options: SampleOptions): Promise<E.Either<Issues, Sample>> => {
  const made = await encodeRow(processor, row, options)
  if (E.isLeft(made)) return made
  const { text, encoded } = made.right
  const { visuals } = encoded
  const rest = { numPatches: visuals.map(({ tiles }) => tiles), tileSize: visuals[0]?.tileSize ?? processor.config.image.size }
  return E.map((pixels: Float32Array) => ({ id: row.id, ...text, pixels, ...rest }))(await readPixels(encoded))
}

/**
 * A row as numbers, prepared as for inference, several pictures sharing the tiles of one. Errors name the row's file and line.
 * Source: `LazySupervisedDataset.__getitem__`, `preprocess_internvl2_5` (OpenGVLab).
 */
export const sampleOf =
  (processor: Processor, row: DatasetRow, options: SampleOptions = {}): TaskEither<Issues, Sample> =>
  async () =>
    at(row)(await readRow(processor, row, options))

/** A preference: the same question and pictures with the better answer and the worse. */
export interface Preference {
  readonly chosen: Sample
  readonly rejected: Sample
}

/** The row with its worse answer instead of the last; throws a `RangeError` for a row without one. */
const withRejected = (row: DatasetRow): DatasetRow => {
  if (row.rejected === undefined) throw new RangeError(`${row.where ?? row.id}: no preference, it has no rejected answer`)
  return { ...row, messages: [...row.messages.slice(0, -1), { role: 'assistant', content: row.rejected }] }
}

const sizeOfRow = async (processor: Processor, row: DatasetRow, options: SampleOptions): Promise<E.Either<Issues, SampleSize>> =>
  E.map(({ text, encoded }: Encoded) => ({
    tokens: text.ids.length,
    tiles: encoded.visuals.reduce((sum, { tiles }) => sum + tiles, 0)
  }))(at(row)(await encodeRow(processor, row, options)))

/**
 * The size of the sample that `sampleOf` would make, of a preference that of its longer answer; of pictures only the headers are
 * read, so that damaged pixels are not found here. Errors: as `sampleOf`.
 */
export const measure =
  (processor: Processor, row: DatasetRow, options: SampleOptions = {}): TaskEither<Issues, SampleSize> =>
  async () => {
    const size = await sizeOfRow(processor, row, options)
    if (E.isLeft(size) || row.rejected === undefined) return size
    const other = await sizeOfRow(processor, withRejected(row), options)
    return E.map(({ tokens }: SampleSize) => ({ ...size.right, tokens: Math.max(size.right.tokens, tokens) }))(other)
  }

/** A preference row as two samples, which share their pixels. */
export const preferenceOf =
  (processor: Processor, row: DatasetRow, options: SampleOptions = {}): TaskEither<Issues, Preference> =>
  async () => {
    const chosen = await sampleOf(processor, row, options)()
    if (E.isLeft(chosen)) return chosen
    const rejected = await sampleOf(processor, withRejected(row), options)()
    return E.map((sample: Sample) => ({ chosen: chosen.right, rejected: { ...sample, pixels: chosen.right.pixels } }))(rejected)
  }
