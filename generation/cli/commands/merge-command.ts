import { Command, Option } from 'commander'
import type { WeightType } from '../../../models/checkpoint/save-model.js'
import { info, type ModelFlags, progressBar, resolveModelFolder, withEngineOption, withHubOptions } from '../common.js'

interface MergeFlags extends Pick<ModelFlags, 'model' | 'engine' | 'revision' | 'offline'> {
  readonly dtype?: WeightType
  readonly force?: true
}

const runMerge = async (source: string, target: string, flags: MergeFlags): Promise<void> => {
  const { model, dtype, force = false, engine, ...hub } = flags
  const { merge } = await import('../../train/merge.js') // loaded here because TensorFlow.js loads slowly
  const folder = (from: string) => {
    if (model === undefined) info(`using ${from}, the base model of ${source}`)
    return resolveModelFolder(from, hub)
  }
  const bar = progressBar('merging')
  await merge(source, target, { model, dtype, force, engine, resolveModel: folder, onProgress: bar.update }).finally(bar.stop)
  info(`${target}: written`)
}

/** `internvl merge`: merges a LoRA adapter or a training checkpoint into the weights of the base model. */
export const mergeCommand = (): Command =>
  withHubOptions(withEngineOption(new Command('merge')))
    .description('merge a LoRA adapter or a training checkpoint into the weights of its base model')
    .argument('<source>', 'folder of a PEFT adapter, output folder of `internvl train`, or one of its checkpoints')
    .argument('<target>', 'folder to write')
    .option('-m, --model <name>', 'base model; default: the model that the source names')
    .addOption(
      new Option('--dtype <type>', 'type of the weights; default: unchanged').choices(['float32', 'bfloat16', 'float16'])
    )
    .option('--force', 'write into a folder that is not empty')
    .addHelpText(
      'after',
      `
For an output folder of a training run, also a stopped one, the last checkpoint is merged.

Examples:
  internvl merge tuned/adapter merged --model OpenGVLab/InternVL3-1B-hf
  internvl merge tuned/checkpoints/step-0000400 merged`
    )
    .action(runMerge)
