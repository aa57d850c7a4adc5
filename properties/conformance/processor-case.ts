import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { orThrow } from '../../lib/error.js'
import { tf } from '../../lib/tf.js'
import { countTiles } from '../../processors/image/tiling.js'
import { loadProcessor, type Processor } from '../../processors/processor.js'
import { withOptions } from '../../processors/processor-options.js'
import type { Messages } from '../../processors/text/messages.js'
import { frameIndices } from '../../processors/video/frame-sampling.js'
import { type Case, readJson, readNumbers } from './case.js'
import { type Check, expectClose, expectEqual, expectWithin, failed, type Outcome } from './outcome.js'

interface ImageRow {
  readonly image: string
  readonly options: { readonly min_patches?: number; readonly max_patches?: number; readonly crop_to_patches?: boolean }
  readonly num_patches: number
  readonly shape: readonly number[]
  readonly mean: readonly (readonly number[])[]
  readonly std: readonly (readonly number[])[]
  readonly corner: readonly (readonly number[])[]
  readonly centre: readonly (readonly number[])[]
}

interface ProcessorCase {
  readonly images: readonly ImageRow[]
  readonly tile_counts: readonly (readonly [number, number, number, number, number])[]
  readonly frame_indices: readonly (readonly [number, number, number, readonly number[]])[]
  readonly chats: ReadonlyArray<{
    readonly input: string
    readonly messages: ReadonlyArray<
      ReadonlyArray<{ readonly role: string; readonly content: string | ReadonlyArray<Record<string, unknown>> }>
    >
    readonly processor: { readonly max_patches?: number }
    readonly prompts: readonly string[]
    readonly input_ids: readonly (readonly number[])[]
    readonly attention_mask: readonly (readonly number[])[]
  }>
  readonly tokens: readonly (readonly [string, readonly number[]])[]
}

const options = ({ min_patches, max_patches, crop_to_patches }: ImageRow['options']) => ({
  ...(min_patches === undefined ? {} : { minPatches: min_patches }),
  ...(max_patches === undefined ? {} : { maxPatches: max_patches }),
  ...(crop_to_patches === undefined ? {} : { cropToPatches: crop_to_patches })
})

const pixelsOf = async (processor: Processor, path: string, row: ImageRow['options']) => {
  const messages: Messages = [{ role: 'user', content: [{ type: 'image', path }] }]
  return orThrow(processor.prepare([messages], options(row)))
}

const imageChecks = async (processor: Processor, images: string, row: ImageRow): Promise<readonly Check[]> => {
  const name = `processor/${row.image} ${JSON.stringify(row.options)}`
  const inputs = await pixelsOf(processor, join(images, row.image), row.options)
  const pixels = inputs.pixelValues!
  const channels = (at: (t: tf.Tensor4D) => tf.Tensor) => tf.tidy(() => Array.from(at(pixels).dataSync()))
  const pixel = (y: number, x: number) => (t: tf.Tensor4D) => t.slice([0, 0, y, x], [t.shape[0], 3, 1, 1])
  const deviation = (t: tf.Tensor4D) => {
    const { variance } = tf.moments(t, [2, 3])
    const n = t.shape[2] * t.shape[3]
    return variance.mul(n / (n - 1)).sqrt() // torch.std is unbiased
  }
  const [middleY, middleX] = [Math.floor(row.shape[2]! / 2), Math.floor(row.shape[3]! / 2)]
  const checks: readonly (readonly [string, Outcome])[] = [
    ['num_patches', expectEqual(inputs.numPatches, [row.num_patches])],
    ['shape', expectEqual(pixels.shape, row.shape)],
    [
      'mean',
      expectWithin(
        channels((t) => t.mean([2, 3])),
        row.mean.flat(),
        1e-5
      )
    ],
    ['std', expectWithin(channels(deviation), row.std.flat(), 1e-5)],
    ['corner', expectWithin(channels(pixel(0, 0)), row.corner.flat(), 1e-5)],
    ['centre', expectWithin(channels(pixel(middleY, middleX)), row.centre.flat(), 1e-5)]
  ]
  tf.dispose([inputs.inputIds, inputs.attentionMask, pixels])
  return checks.map(([value, outcome]) => ({ name: `${name}: ${value}`, outcome }))
}

const chatChecks = async (
  processor: Processor,
  images: string,
  chat: ProcessorCase['chats'][number]
): Promise<readonly Check[]> => {
  const batch = chat.messages.map((row) =>
    row.map(({ role, content }) => ({
      role,
      content:
        typeof content === 'string'
          ? content
          : content.map((item) => (item.type === 'image' ? { type: 'image', path: join(images, String(item.image)) } : item))
    }))
  ) as unknown as readonly Messages[]
  const prepared = await processor.prepare(batch, options(chat.processor))()
  const name = `processor/chat ${chat.input}`
  if (E.isLeft(prepared)) return [{ name, outcome: failed(prepared.left.map((f) => f.message).join('; ')) }]
  const { prompts, inputIds, attentionMask, pixelValues } = prepared.right
  const checks = [
    { name: `${name}: prompts`, outcome: expectEqual(prompts, chat.prompts) },
    { name: `${name}: input_ids`, outcome: expectEqual(inputIds.arraySync(), chat.input_ids) },
    { name: `${name}: attention_mask`, outcome: expectEqual(attentionMask.arraySync(), chat.attention_mask) }
  ]
  tf.dispose([inputIds, attentionMask, ...(pixelValues ? [pixelValues] : [])])
  return checks
}

const storedPixels = async (processor: Processor, dir: string, images: string): Promise<readonly Check[]> => {
  const stored = await readNumbers(join(dir, 'processor.safetensors'))
  const checks = [...stored].map(async ([key, expected]): Promise<Check> => {
    const image = key.replace(/\/pixel_values$/, '')
    const inputs = await pixelsOf(processor, join(images, image), { min_patches: 1, max_patches: 6 })
    const values = Float32Array.from(inputs.pixelValues!.dataSync())
    const outcome = expectClose({ shape: inputs.pixelValues!.shape, values }, expected, 1e-5)
    tf.dispose([inputs.inputIds, inputs.attentionMask, inputs.pixelValues!])
    return { name: `processor/${key}`, outcome }
  })
  return Promise.all(checks)
}

/** All checks of the processor case: images, tile counts, frame indices, chats, tokens. */
export const processorCaseChecks = async ({ dir }: Case, images: string): Promise<readonly Check[]> => {
  const numbers = readJson(join(dir, 'processor.json')) as ProcessorCase
  const processor = await orThrow(loadProcessor(join(dir, 'checkpoint'), { imageBackend: 'pillow' })) // the reference was made with Pillow
  const checks: Check[] = []
  for (const row of numbers.images) checks.push(...(await imageChecks(processor, images, row)))
  for (const [height, width, minPatches, maxPatches, count] of numbers.tile_counts) {
    const settings = withOptions(processor.config, { minPatches, maxPatches, cropToPatches: true }).image
    const name = `processor/tiles of ${height} x ${width}, ${minPatches} to ${maxPatches}`
    checks.push({ name, outcome: expectEqual(countTiles({ height, width }, settings), count) })
  }
  for (const [totalNumFrames, fps, numFrames, indices] of numbers.frame_indices) {
    const got = frameIndices(
      { totalNumFrames, fps },
      { numFrames, fps: undefined, initialShift: processor.config.video.initialShift }
    )
    const name = `processor/${numFrames} frames of ${totalNumFrames}`
    checks.push({ name, outcome: E.isLeft(got) ? failed(got.left[0].message) : expectEqual(got.right, indices) })
  }
  for (const chat of numbers.chats) checks.push(...(await chatChecks(processor, images, chat)))
  for (const [text, ids] of numbers.tokens)
    checks.push({
      name: `processor/tokens of ${JSON.stringify(text)}`,
      outcome: expectEqual(processor.tokenizer.encode(text), ids)
    })
  return [...checks, ...(await storedPixels(processor, dir, images))]
}
