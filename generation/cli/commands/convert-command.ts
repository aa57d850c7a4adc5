import { Command, InvalidArgumentError, Option } from 'commander'
import { parseSize } from '../../../lib/safetensors/shards.js'
import type { Layout } from '../../../models/checkpoint/layout.js'
import type { WeightType } from '../../../models/checkpoint/save-model.js'
import { folderOf, type HubFlags, progressBar, say, withHubOptions } from '../common.js'
import { type PrecisionFlags, quantizeOption } from '../flags/precision-flags.js'

interface ConvertFlags extends HubFlags {
  readonly layout: Layout
  readonly dtype?: WeightType
  readonly quantize?: PrecisionFlags['quantize']
  readonly shardSize?: number
  readonly force?: true
}

/** A size in bytes, for commander. */
const size = (text: string): number => {
  const bytes = parseSize(text)
  if (bytes === undefined) throw new InvalidArgumentError(`${JSON.stringify(text)} is no size; 5GB and 500MiB are.`)
  return bytes
}

const convertModel = async (model: string, to: string, flags: ConvertFlags): Promise<void> => {
  const { layout, dtype, quantize, shardSize, force, ...hub } = flags
  const from = await folderOf(model, hub)
  const { convert } = await import('../../checkpoint/save.js') // TensorFlow.js takes a while to load: not for `--help`
  const bar = progressBar('converting')
  try {
    const onProgress = bar.update
    const shards = shardSize === undefined ? {} : { shardBytes: shardSize }
    const written = await convert(from, to, { layout, dtype, quantize, force: force === true, onProgress, ...shards })
    bar.stop()
    say(`${to}: written in the ${written} layout${dtype ? `, ${dtype}` : ''}`)
  } finally {
    bar.stop()
  }
}

/** `internvl convert`: a checkpoint folder in another layout, type, or shard size. */
export const convertCommand = (): Command =>
  withHubOptions(new Command('convert'))
    .description('convert a checkpoint folder to another layout, type of weights or fewer bits')
    .argument('<source>', 'the folder to convert, or org/name of the hub')
    .argument('<target>', 'the folder to write')
    .addOption(
      new Option('--layout <name>', "hf: Transformers'; hf-first: as -hf was first published; original: OpenGVLab's")
        .choices(['hf', 'hf-first', 'original', 'original-internlm2'])
        .default('hf')
    )
    .addOption(
      new Option('--dtype <type>', 'type of the weights; as they are by default').choices(['float32', 'bfloat16', 'float16'])
    )
    .addOption(quantizeOption('weights in fewer bits, which this library alone reads: int8, 4bit, or vision=int8,decoder=4bit'))
    .option('--shard-size <size>', 'size of a file of weights at most; 5GB by default', size)
    .option('--force', 'write though the target is not empty')
    .addHelpText(
      'after',
      `
With --dtype packed weights become numbers again, those that they stand for: what quantization lost stays lost.

original writes InternLM2's own names where config.json tells that the checkpoint was published with them (${'`original_model_type`'},
which a conversion to hf leaves there); original-internlm2 writes them for any Llama decoder.

Example:
  internvl convert InternVL3-1B InternVL3-1B-hf --layout hf --dtype bfloat16
  internvl convert InternVL3-8B-hf InternVL3-8B-int4 --quantize 4bit`
    )
    .action(convertModel)
