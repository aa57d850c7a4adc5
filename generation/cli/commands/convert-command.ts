import { readFile } from 'node:fs/promises'
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
  readonly calibrate?: string
  readonly shardSize?: number
  readonly force?: true
}

/** Parses a size in bytes for commander. */
const size = (text: string): number => {
  const bytes = parseSize(text)
  if (bytes === undefined) throw new InvalidArgumentError(`${JSON.stringify(text)} is not a size; use for example 5GB or 500MiB.`)
  return bytes
}

type ConvertArguments = [model: string, to: string, flags: ConvertFlags, command: Command]

/** Quantizes with a calibration text. */
const convertWithText = async ([model, to, flags, command]: ConvertArguments, file: string): Promise<void> => {
  const { layout, quantize, shardSize, force, ...hub } = flags
  if (quantize === undefined) return command.error('error: --calibrate needs --quantize', { exitCode: 2 })
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) =>
    command.error(`error: --calibrate: ${file} cannot be read (${error.code ?? error.message})`, { exitCode: 2 })
  )
  const from = await resolveModelFolder(model, hub)
  const { convertCalibrated } = await import('../../checkpoint/convert-calibrated.js')
  const bar = progressBar('calibrating', 100, '%')
  try {
    const options = { layout, quantize, text, force: force === true, onProgress: (share: number) => bar.update(share, 1) }
    await convertCalibrated(from, to, { ...options, ...(shardSize === undefined ? {} : { shardBytes: shardSize }) })
    bar.stop()
    info(`${to}: written in the ${layout} layout, calibrated with ${file}`)
  } finally {
    bar.stop()
  }
}

const convertModel = async (...all: ConvertArguments): Promise<void> => {
  const [model, to, { layout, dtype, quantize, calibrate, shardSize, force, ...hub }] = all
  if (calibrate !== undefined) return convertWithText(all, calibrate)
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
    .addOption(
      new Option(
        '--calibrate <file>',
        'with --quantize: round the weights of the decoder so that its outputs change least while it reads this text, of some thousand words like ' +
          'those of its later use; needs the memory of the model and some minutes'
      ).conflicts('dtype')
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
  internvl convert InternVL3-8B-hf InternVL3-8B-int4 --quantize int4
  internvl convert InternVL3-1B-hf InternVL3-1B-int4 --quantize int4 --calibrate conversations.txt`
    )
    .action(convertModel)
