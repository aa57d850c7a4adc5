import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { type ImageSource, readImage } from '../../../processors/image/image.js'
import { numbers, shortTexts, values } from '../awkward.js'
import { type ByteEdit, byteEdits, editBytes } from '../edits.js'
import { samples } from '../fixture.js'
import { attempt, refuseNaN, settle } from '../verdict.js'
import { fuzzKind } from './fuzz-kind.js'

type Input =
  | { readonly name: string; readonly edits: readonly ByteEdit[]; readonly encoding: 'bytes' | 'data URL' }
  | { readonly source: unknown }

const files = readdirSync(join(samples, 'images'))
  .filter((name) => !name.endsWith('.json'))
  .sort()

const raw = fc.record({ data: fc.uint8Array({ maxLength: 48 }), width: numbers, height: numbers, channels: fc.oneof(fc.constantFrom(1, 2, 3, 4), numbers) }) // biome-ignore format: one line
const sources = fc.oneof(raw, values, shortTexts, fc.uint8Array({ maxLength: 64 }), shortTexts.map((text) => `data:image/png;base64,${text}`)) // biome-ignore format: one line

/** A changed byte may make a TIFF of 23 x 6,619,153 pixels, which Pillow's default limit lets pass and which takes seconds to decode. */
const maxPixels = 30_000_000

/** Files of all image formats with changed bytes, and values that are no images. */
export const imageKind = fuzzKind<Input>({
  name: 'image',
  arbitrary: fc.oneof(
    { weight: 6, arbitrary: fc.record({ name: fc.constantFrom(...files), edits: byteEdits(5), encoding: fc.constantFrom('bytes' as const, 'data URL' as const) }) },
    { weight: 1, arbitrary: fc.record({ source: sources }) }
  ), // biome-ignore format: one line a form
  run: async (input, { internvl: { processor } }) => {
    const bytes = 'name' in input ? editBytes(readFileSync(join(samples, 'images', input.name)), input.edits) : undefined
    const source = (
      bytes === undefined
        ? (input as { source: unknown }).source
        : 'encoding' in input && input.encoding === 'bytes'
          ? bytes
          : `data:image/png;base64,${Buffer.from(bytes).toString('base64')}`
    ) as ImageSource
    const messages = [
      {
        role: 'user',
        content: [
          { type: 'image', image: source },
          { type: 'text', text: 'What?' }
        ]
      }
    ] as const
    await attempt(() => settle(readImage(source, { maxPixels })))
    await attempt(() => settle(processor.countTokens(messages, { maxPixels })))
    const inputs = await settle(processor.prepare([messages], { maxPixels }))
    try {
      if (inputs.pixelValues) refuseNaN('pixelValues', inputs.pixelValues.dataSync())
    } finally {
      inputs.dispose()
    }
    return true
  }
})
