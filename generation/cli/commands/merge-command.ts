import { Command, Option } from 'commander'
import type { WeightType } from '../../../models/checkpoint/save-model.js'
import { folderOf, type ModelFlags, progressBar, say, withEngineOption, withHubOptions } from '../common.js'

interface MergeFlags extends Pick<ModelFlags, 'model' | 'engine' | 'revision' | 'offline'> {
  readonly dtype?: WeightType
  readonly force?: true
}

const mergeTuned = async (source: string, target: string, flags: MergeFlags): Promise<void> => {
  const { model, dtype, force = false, engine, ...hub } = flags
  const { merge } = await import('../../train/merge.js') // TensorFlow.js takes a while to load: not for `--help`
  const folder = (from: string) => {
    if (model === undefined) say(`${source}: made for ${from}; --model names another`)
    return folderOf(from, hub)
  }
  const bar = progressBar('merging')
  await merge(source, target, { model, dtype, force, engine, folderOf: folder, onProgress: bar.update }).finally(bar.stop)
  say(`${target}: written`)
}

/** `internvl merge`: a LoRA adapter or what a training run has reached, merged into the model's weights. */
export const mergeCommand = (): Command =>
  withHubOptions(withEngineOption(new Command('merge')))
    .description('merge a LoRA adapter, or what a training run has reached, into the weights of its model')
    .argument('<source>', "a PEFT adapter's folder, the output of `internvl train`, or one of its checkpoints")
    .argument('<target>', 'the folder to write')
    .option('-m, --model <name>', 'the model that was trained, if it is not where the source says')
    .addOption(
      new Option('--dtype <type>', "type of the weights; the model's own by default").choices(['float32', 'bfloat16', 'float16'])
    )
    .option('--force', 'write though the target is not empty')
    .addHelpText(
      'after',
      `
Of an output the last checkpoint is taken, of a run that was stopped too.

Examples:
  internvl merge tuned/adapter merged --model OpenGVLab/InternVL3-1B-hf
  internvl merge tuned/checkpoints/step-0000400 merged`
    )
    .action(mergeTuned)
