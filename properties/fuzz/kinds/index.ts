import { adapterKind } from './adapter-kind.js'
import { checkpointKind } from './checkpoint-kind.js'
import { configKind } from './config-kind.js'
import { dataKind } from './data-kind.js'
import type { FuzzKind } from './fuzz-kind.js'
import { imageKind } from './image-kind.js'
import { kernelKind } from './kernel-kind.js'
import { optionKind } from './option-kind.js'
import { plantedKind } from './planted-kind.js'
import { promptKind } from './prompt-kind.js'
import { templateKind } from './template-kind.js'
import { tokenizerKind } from './tokenizer-kind.js'
import { videoKind } from './video-kind.js'

/** The kinds of input that `npm run fuzz` makes, by name. */
export const kinds: readonly FuzzKind[] = [
  checkpointKind,
  configKind,
  tokenizerKind,
  templateKind,
  adapterKind,
  dataKind,
  imageKind,
  videoKind,
  promptKind,
  optionKind,
  kernelKind
]

/** The kind with a name. Includes `planted`, whose inputs break promises on purpose. Throws a `RangeError` for an unknown name. */
export const kindNamed = (name: string): FuzzKind => {
  const kind = [...kinds, plantedKind].find((one) => one.name === name)
  if (!kind) throw new RangeError(`--kind ${name}: use one of ${kinds.map((one) => one.name).join(', ')}`)
  return kind
}
