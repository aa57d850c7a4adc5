import { Command, InvalidArgumentError, Option } from 'commander'
import { parseSize } from '../../../lib/safetensors/shards.js'
import type { Layout } from '../../../models/checkpoint/layout.js'
import type { WeightType } from '../../../models/checkpoint/save-model.js'
import { type HubFlags, info, progressBar, resolveModelFolder, withHubOptions } from '../common.js'
import { type PrecisionFlags, quantizeOption } from '../flags/precision-flags.js'

interface ConvertFlags extends HubFlags {
  readonly layout: Layout
  readonly dtype?: WeightType
  readonly quantize?: PrecisionFlags['quantize']
  readonly shardSize?: number
  readonly force?: true
}

/** Parses a size in bytes for commander. */
const size = (text: string): number => {
  const bytes = parseSize(text)
  if (bytes === undefined) throw new InvalidArgumentError(`${JSON.stringify(text)} is not a size; use for example 5GB or 500MiB.`)
  return bytes
}

const convertModel = async (model: string, to: string, flags: ConvertFlags): Promise<void> => {
  const { layout, dtype, quantize, shardSize, force, ...hub } = flags
  const from = await resolveModelFolder(model, hub)
  const { convert } = await import('../../checkpoint/save.js') // loaded here because TensorFlow.js loads slowly
  const bar = progressBar('converting')
  try {
    const onProgress = bar.update
    const shards = shardSize === undefined ? {} : { shardBytes: shardSize }
    const written = await convert(from, to, { layout, dtype, quantize, force: force === true, onProgress, ...shards })
    bar.stop()
    info(`${to}: written in the ${written} layout${dtype ? `, ${dtype}` : ''}`)
  } finally {
    bar.stop()
  }
}

/** `internvl convert`: converts a checkpoint folder to another layout, dtype, quantization format or shard size. */
export const convertCommand = (): Command =>
  withHubOptions(new Command('convert'))
    .description('convert a checkpoint folder to another layout, dtype or quantization format')
    .argument('<source>', 'checkpoint folder, or org/name on the hub')
    .argument('<target>', 'folder to write')
    .addOption(
      new Option('--layout <name>', 'hf: Transformers; hf-first: the first published -hf layout; original: OpenGVLab')
        .choices(['hf', 'hf-first', 'original', 'original-internlm2'])
        .default('hf')
    )
    .addOption(
      new Option('--dtype <type>', 'type of the weights; default: unchanged').choices(['float32', 'bfloat16', 'float16'])
    )
    .addOption(
      quantizeOption('quantize the weights: int8, int4, or vision=int8,decoder=int4; only this library reads the result')
    )
    .option('--shard-size <size>', 'maximum size of a weight file; default: 5GB', size)
    .option('--force', 'write into a folder that is not empty')
    .addHelpText(
      'after',
      `
With --dtype quantized weights are dequantized; the precision lost by quantization is not restored.

The layout original writes the tensor names of InternLM2 if \`original_model_type\` of config.json says that the checkpoint was published
with them (a conversion to hf keeps this entry); original-internlm2 writes them for any Llama decoder.

Example:
  internvl convert InternVL3-1B InternVL3-1B-hf --layout hf --dtype bfloat16
  internvl convert InternVL3-8B-hf InternVL3-8B-int4 --quantize int4`
    )
    .action(convertModel)
