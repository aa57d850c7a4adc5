import { readFile } from 'node:fs/promises'
import { Command, InvalidArgumentError, Option } from 'commander'
import { InternVLError, issue } from '../../../lib/error.js'
import type { WeightType } from '../../../models/checkpoint/save-model.js'
import { info, positiveInteger, progressBar } from '../common.js'
import { hubProgress } from '../flags/hub-flags.js'

interface AssembleFlags {
  readonly vision: string
  readonly decoder: string
  readonly out: string
  readonly projector?: string
  readonly seed?: number
  readonly imageSize?: number
  readonly maxPatches?: number
  readonly chatTemplate?: string
  readonly dtype?: WeightType
  readonly offline?: true
  readonly force?: true
}

const seed = (text: string): number => {
  const n = Number(text)
  if (!Number.isSafeInteger(n) || n < 0) throw new InvalidArgumentError(`${JSON.stringify(text)} is not a whole number from 0.`)
  return n
}

const readTemplate = (file: string): Promise<string> =>
  readFile(file, 'utf8').catch((error: Error) => {
    throw new InternVLError([issue('Unreadable', `--chat-template ${file}: it cannot be read (${error.message})`, { file })])
  })

const assembleModel = async ({ chatTemplate, ...flags }: AssembleFlags): Promise<void> => {
  const template = chatTemplate === undefined ? undefined : await readTemplate(chatTemplate)
  const { assemble } = await import('../../assemble/assemble.js') // loaded here because TensorFlow.js loads slowly
  const view = hubProgress(flags.vision)
  const bar = progressBar('writing')
  try {
    const options = { ...view.options, ...flags, chatTemplate: template, onProgress: bar.update }
    const { config, addedTokens } = await assemble(options)
    bar.stop()
    const { visionConfig, textConfig, imageSeqLength } = config
    info(
      `${flags.out}: written; ${visionConfig.numHiddenLayers} vision layers, ${textConfig.numHiddenLayers} ${textConfig.modelType} layers, ` +
        `${imageSeqLength} tokens for a tile of ${visionConfig.imageSize[0]} pixels, ${addedTokens} tokens added`
    )
    if (flags.projector === undefined) info('the projector has random weights: train it before the model is asked about images')
  } finally {
    bar.stop()
    view.end()
  }
}

/** `internvl assemble`: puts a new InternVL together from a vision tower, a text decoder and a projector. */
export const assembleCommand = (): Command =>
  new Command('assemble')
    .description('put a new model together from a vision tower, a text decoder and a projector')
    .requiredOption('--vision <name>', 'folder or org/name of the vision tower: an InternVL; InternViT, DINOv2 or ViT alone')
    .requiredOption('--decoder <name>', 'folder or org/name of the text decoder, or its GGUF file')
    .requiredOption('--out <folder>', 'folder to write')
    .option('--projector <name>', 'folder or org/name of an InternVL whose projector is taken; default: random weights')
    .option('--seed <n>', 'seed of the random weights of the projector; default: 0', seed)
    .option(
      '--image-size <pixels>',
      "side of a tile, a multiple of two patches; default: the tower's own, rounded down",
      positiveInteger
    )
    .option('--max-patches <n>', 'maximum number of tiles of an image; default: 12', positiveInteger)
    .option('--chat-template <file>', 'Jinja chat template, for a decoder without one or with another')
    .addOption(
      new Option('--dtype <type>', "type of the weights; default: the decoder's").choices(['float32', 'bfloat16', 'float16'])
    )
    .option('--offline', 'send no request to the hub; use cached files only')
    .option('--force', 'write into a folder that is not empty')
    .addHelpText(
      'after',
      `
Visual tokens are added to the tokenizer, and the chat template shows images. The model learns to see by training: first the projector, then
LoRA (docs/assembling.md).

Example:
  internvl assemble --vision facebook/dinov2-small --decoder Qwen/Qwen3-0.6B --out mine`
    )
    .action(assembleModel)
