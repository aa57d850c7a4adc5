import { writeFile } from 'node:fs/promises'
import { Command, InvalidArgumentError, Option } from 'commander'
import { engineNames } from '../../../lib/engines/engine.js'
import type { EngineName } from '../../../lib/engines/index.js'
import { InternVLError, issue } from '../../../lib/error.js'
import type { VisionConfig } from '../../../models/config/parse-config.js'
import type { ImageBackend } from '../../../processors/image/image-backend.js'
import {
  appendValue,
  type HubFlags,
  imageBackendOption,
  info,
  positiveInteger,
  resolveModelFolder,
  withHubOptions
} from '../common.js'
import { type PrecisionFlags, precisionOptions, withPrecisionOptions } from '../flags/precision-flags.js'
import { npy } from '../npy.js'

interface EmbedFlags extends HubFlags, PrecisionFlags {
  readonly image: readonly string[]
  readonly model?: string
  readonly engine?: EngineName
  readonly projected?: true
  readonly hiddenStates?: number
  readonly attentions?: number
  readonly maxPatches?: number
  readonly imageBackend?: ImageBackend
  readonly output?: string
  readonly json?: true
}

/** Nested lists from the values and the shape of a tensor. */
const nested = (values: Float32Array, [n = 1, ...rest]: readonly number[]): unknown => {
  if (rest.length === 0) return Array.from(values)
  const size = values.length / n
  return Array.from({ length: n }, (_, i) => nested(values.subarray(i * size, (i + 1) * size), rest))
}

const write = async (file: string, bytes: Uint8Array, shape: readonly number[]): Promise<void> => {
  await writeFile(file, bytes).catch((error: Error) => {
    throw new InternVLError([issue('WriteFailed', `${file}: cannot be written (${error.message})`, { file })])
  })
  info(`${file}: float32 [${shape.join(', ')}]`)
}

/** Parses the index of a layer for commander. */
const layer = (text: string): number => {
  const n = Number(text || Number.NaN)
  if (!Number.isSafeInteger(n) || n < 0) throw new InvalidArgumentError('Expected a whole number of 0 or more.')
  return n
}

/** Name of the returned values. */
const kindOf = ({ projected, hiddenStates, attentions }: EmbedFlags, { useMeanPooling }: VisionConfig): string => {
  if (projected) return 'projected'
  if (hiddenStates !== undefined) return `hidden states ${hiddenStates}`
  if (attentions !== undefined) return `attentions ${attentions}`
  return useMeanPooling ? 'mean' : 'cls'
}

const embedImages = async (flags: EmbedFlags): Promise<void> => {
  const { image, model, engine, output, json } = flags
  const folder = model === undefined ? undefined : await resolveModelFolder(model, flags)
  const { embed, loadVisionEncoder } = await import('../../embed.js') // loaded here because TensorFlow.js loads slowly
  const vision = await loadVisionEncoder(folder, { engine, imageBackend: flags.imageBackend, ...precisionOptions(flags) })
  const { projected = false, hiddenStates, attentions, maxPatches = 1 } = flags
  const { values, tiles } = await embed(vision, image, { projected, hiddenStates, attentions, maxPatches })
  const [data, shape] = [(await values.data()) as Float32Array, values.shape]
  if (output !== undefined) await write(output, npy(data, shape), shape)
  if (output === undefined || json) {
    const rows = nested(data, shape) as readonly unknown[]
    const starts = tiles.map((_, i) => tiles.slice(0, i).reduce((a, b) => a + b, 0))
    const images = image.map((path, i) => ({ image: path, embeddings: rows.slice(starts[i]!, starts[i]! + tiles[i]!) }))
    console.log(JSON.stringify({ model: vision.dir, pooling: kindOf(flags, vision.config.visionConfig), shape, images }))
  }
  values.dispose()
  vision.dispose()
}

/** `internvl embed`: image embeddings from the vision encoder alone. */
export const embedCommand = (): Command =>
  withPrecisionOptions(withHubOptions(new Command('embed')))
    .description('compute image embeddings with the vision encoder alone')
    .requiredOption('-i, --image <path>', 'image file, http(s) or data URL, or base64; may be repeated', appendValue)
    .option('-m, --model <name>', 'checkpoint folder, or org/name on the hub; default: the small demo model of the package')
    .addOption(
      new Option(
        '--projected',
        'image features after the projector, as the decoder receives them, instead of one vector'
      ).conflicts(['hiddenStates', 'attentions'])
    )
    .addOption(
      new Option('--hidden-states <n>', 'hidden states after n layers, instead of one vector; 0: the embeddings')
        .argParser(layer)
        .conflicts('attentions')
    )
    .option('--attentions <n>', 'attention weights of a layer, instead of one vector; 0: the first layer', layer)
    .option(
      '--max-patches <n>',
      'maximum number of tiles of an image, one vector per tile; default: 1, the whole image',
      positiveInteger
    )
    .addOption(imageBackendOption())
    .option('-o, --output <file>', 'write a NumPy file (.npy, float32) instead of JSON')
    .option('--json', 'print the vectors as JSON, also with --output')
    .addOption(
      new Option('--engine <name>', 'engine to compute with; default: the fastest available engine').choices(engineNames)
    )
    .addHelpText('after', '\nExample:\n  internvl embed --image a.png --image b.png --output vectors.npy')
    .action(embedImages)
