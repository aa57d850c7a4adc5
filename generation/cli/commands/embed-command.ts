import { writeFile } from 'node:fs/promises'
import { Command, InvalidArgumentError, Option } from 'commander'
import { engineNames } from '../../../lib/engines/engine.js'
import type { EngineName } from '../../../lib/engines/index.js'
import { InternVLError, issue } from '../../../lib/error.js'
import type { VisionConfig } from '../../../models/config/parse-config.js'
import { folderOf, type HubFlags, repeated, say, wholeNumber, withHubOptions } from '../common.js'
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
  readonly output?: string
  readonly json?: true
}

/** A flat tensor as nested lists. */
const nested = (values: Float32Array, [n = 1, ...rest]: readonly number[]): unknown => {
  if (rest.length === 0) return Array.from(values)
  const size = values.length / n
  return Array.from({ length: n }, (_, i) => nested(values.subarray(i * size, (i + 1) * size), rest))
}

const write = async (file: string, bytes: Uint8Array, shape: readonly number[]): Promise<void> => {
  await writeFile(file, bytes).catch((error: Error) => {
    throw new InternVLError([issue('WriteFailed', `${file}: it cannot be written (${error.message})`, { file })])
  })
  say(`${file}: float32 [${shape.join(', ')}]`)
}

/** The number of a layer, for commander. */
const layer = (text: string): number => {
  const n = Number(text || Number.NaN)
  if (!Number.isSafeInteger(n) || n < 0) throw new InvalidArgumentError('It should be a whole number, 0 or more.')
  return n
}

/** What the values are. */
const kindOf = ({ projected, hiddenStates, attentions }: EmbedFlags, { useMeanPooling }: VisionConfig): string => {
  if (projected) return 'projected'
  if (hiddenStates !== undefined) return `hidden states ${hiddenStates}`
  if (attentions !== undefined) return `attentions ${attentions}`
  return useMeanPooling ? 'mean' : 'cls'
}

const embedPictures = async (flags: EmbedFlags): Promise<void> => {
  const { image, model, engine, output, json } = flags
  const folder = model === undefined ? undefined : await folderOf(model, flags)
  const { embed, loadEyes } = await import('../../embed.js') // TensorFlow.js takes a while to load: not for `--help`
  const eyes = await loadEyes(folder, { engine, ...precisionOptions(flags) })
  const { projected = false, hiddenStates, attentions, maxPatches = 1 } = flags
  const { values, tiles } = await embed(eyes, image, { projected, hiddenStates, attentions, maxPatches })
  const [data, shape] = [(await values.data()) as Float32Array, values.shape]
  if (output !== undefined) await write(output, npy(data, shape), shape)
  if (output === undefined || json) {
    const rows = nested(data, shape) as readonly unknown[]
    const starts = tiles.map((_, i) => tiles.slice(0, i).reduce((a, b) => a + b, 0))
    const images = image.map((path, i) => ({ image: path, embeddings: rows.slice(starts[i]!, starts[i]! + tiles[i]!) }))
    console.log(JSON.stringify({ model: eyes.dir, pooling: kindOf(flags, eyes.config.visionConfig), shape, images }))
  }
  values.dispose()
  eyes.dispose()
}

/** `internvl embed`: vectors of pictures, by the vision tower alone. */
export const embedCommand = (): Command =>
  withPrecisionOptions(withHubOptions(new Command('embed')))
    .description('turn pictures into vectors with the vision tower alone')
    .requiredOption('-i, --image <path>', 'a picture: a file or an http(s) address; repeat for several', repeated)
    .option('-m, --model <name>', 'checkpoint folder, or org/name of the hub; the small demo model of the package by default')
    .addOption(
      new Option('--projected', 'the image tokens that the decoder would read, instead of one vector').conflicts([
        'hiddenStates',
        'attentions'
      ])
    )
    .addOption(
      new Option('--hidden-states <n>', "the tower's states after n layers, instead of one vector; 0 is its embeddings")
        .argParser(layer)
        .conflicts('attentions')
    )
    .option('--attentions <n>', 'the attention weights of a layer, instead of one vector; 0 is the first', layer)
    .option('--max-patches <n>', 'tiles of a picture at most, a vector each; 1, the whole picture, by default', wholeNumber)
    .option('-o, --output <file>', 'write a NumPy file (.npy, float32) instead of JSON')
    .option('--json', 'the vectors as JSON on standard output, beside a file too')
    .addOption(new Option('--engine <name>', 'where to compute; the best one at hand by default').choices(engineNames))
    .addHelpText('after', '\nExample:\n  internvl embed --image a.png --image b.png --output vectors.npy')
    .action(embedPictures)
