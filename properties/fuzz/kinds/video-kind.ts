import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { numbers } from '../awkward.js'
import { type ByteEdit, byteEdits, editBytes } from '../edits.js'
import { samples } from '../fixture.js'
import { refuseNaN, settle } from '../verdict.js'
import { fuzzKind } from './fuzz-kind.js'

interface Input {
  readonly name: string
  readonly edits: readonly ByteEdit[]
  readonly asPath: boolean
  readonly numFrames: number | undefined
  readonly fps: number | undefined
}

const files = readdirSync(join(samples, 'videos'))
  .filter((name) => !name.endsWith('.json'))
  .sort()

/** Files of all video containers with changed bytes, and odd numbers of frames. */
export const videoKind = fuzzKind<Input>({
  name: 'video',
  arbitrary: fc.record({
    name: fc.constantFrom(...files),
    edits: byteEdits(5),
    asPath: fc.boolean(),
    numFrames: fc.oneof({ weight: 4, arbitrary: fc.constantFrom(undefined, 1, 2, 4) }, { weight: 1, arbitrary: numbers }),
    fps: fc.oneof({ weight: 6, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: numbers })
  }),
  run: async ({ name, edits, asPath, numFrames, fps }, fixture) => {
    const bytes = editBytes(readFileSync(join(samples, 'videos', name)), edits)
    const path = join(fixture.work(), name)
    if (asPath) writeFileSync(path, bytes)
    const messages = [{ role: 'user', content: [{ type: 'video', video: asPath ? path : bytes }, { type: 'text', text: 'What?' }] }] as const // biome-ignore format: one line
    const options = { ...(numFrames === undefined ? {} : { numFrames }), ...(fps === undefined ? {} : { fps }) }
    const inputs = await settle(fixture.internvl.processor.prepare([messages], options))
    try {
      if (inputs.pixelValues) refuseNaN('pixelValues', inputs.pixelValues.dataSync())
    } finally {
      inputs.dispose()
    }
    return true
  }
})
