import { count, either, flag, index, type Kind, listOf, oneOf, positive, text } from '../../models/config/config-fields.js'
import { IMAGE_BACKENDS } from '../../processors/image/image-backend.js'

/** A setting: the values it accepts, its default (null: none), and its description. */
export interface Setting<A, D = unknown> {
  readonly kind: Kind<A>
  readonly value: D
  readonly required: boolean
  readonly description: string
}

const setting = <A, D extends A | null>(kind: Kind<A>, value: D, description: string): Setting<A, D> => ({
  kind,
  value,
  description,
  required: false
})
const required = <A>(kind: Kind<A>, description: string): Setting<A, A> => ({
  kind,
  value: null as A,
  description,
  required: true
})

const fraction: Kind<number> = {
  expected: 'a number of 0 or more, below 1',
  is: (v): v is number => typeof v === 'number' && v >= 0 && v < 1
}
const nonNegative: Kind<number> = {
  expected: 'a number of 0 or more',
  is: (v): v is number => Number.isFinite(v) && (v as number) >= 0
}
const upToOne: Kind<number> = {
  expected: 'a number above 0, at most 1',
  is: (v): v is number => typeof v === 'number' && v > 0 && v <= 1
}
const texts = listOf(text)
const lossType = oneOf(['sft', 'dpo', 'mpo'])
const reduction = oneOf(['token', 'sample', 'square'])
const biases = oneOf(['none', 'all', 'lora_only'])
const schedule = oneOf(['cosine', 'linear', 'constant'])
const imageBackend = oneOf(IMAGE_BACKENDS)
const weightType = oneOf(['float32', 'bfloat16', 'float16'])

/** Every setting by its dotted path: in the file `{ "lora": { "rank": 16 } }`, on the command line `--set lora.rank=16`. */
export const settings = {
  model: setting(text, null, 'checkpoint folder, or org/name of the hub; default: the demo model of the package'),
  output: required(text, 'folder of the result, the checkpoints and the logs'),
  data: required(
    either(text, texts),
    'jsonl files, JSON arrays of rows, or a mixture file (.json) that lists files with their repeats'
  ),
  validation: setting(text, null, 'jsonl file of the validation set; its loss is logged and selects the best checkpoint'),
  epochs: setting(positive, 1, 'number of passes over the data'),
  steps: setting(count, null, 'number of optimizer steps, instead of epochs'),
  seed: setting(index, 0, 'seed of all random numbers; equal seeds give equal runs'),
  'train.only': setting(texts, null, 'patterns of the parameters to train; default: all, or with LoRA none'),
  'train.freeze': setting(texts, [], 'patterns of the parameters to freeze, such as "vision_tower.**"'),
  'lora.rank': setting(count, null, 'rank of LoRA; default: no LoRA, the weights themselves are trained'),
  'lora.alpha': setting(positive, null, 'the LoRA update is scaled by alpha / rank; default: twice the rank'),
  'lora.dropout': setting(fraction, 0.05, 'dropout of the input of LoRA'),
  'lora.targetModules': setting(
    texts,
    null,
    'patterns of the modules that get LoRA: linear layers, embed_tokens, experts.gate_up_proj, or all-linear; default: all linear layers and experts of the decoder'
  ),
  'lora.useDora': setting(flag, false, 'DoRA: trains the magnitude of each row of a weight beside its direction'),
  'lora.useRslora': setting(flag, false, 'rsLoRA: scales by alpha / √rank instead of alpha / rank'),
  'lora.bias': setting(biases, 'none', 'biases that are trained too: none, all, or lora_only (those of modules with LoRA)'),
  'loss.type': setting(lossType, 'sft', 'sft: supervised answers; dpo, mpo: pairs of a chosen and a rejected answer'),
  'loss.reduction': setting(reduction, 'token', 'weight of a sample of x tokens: x (token), 1 (sample) or √x (square)'),
  'loss.beta': setting(positive, 0.1, 'dpo, mpo: beta of the loss, a larger value keeps closer to the reference model'),
  'loss.dpo': setting(nonNegative, null, 'weight of the DPO term; default: 1 for dpo, 0.8 for mpo'),
  'loss.bco': setting(nonNegative, null, 'weight of the BCO term; default: 0 for dpo, 0.2 for mpo'),
  'loss.nll': setting(nonNegative, null, 'weight of the likelihood of the chosen answer; default: 0 for dpo, 1 for mpo'),
  'batch.size': setting(count, 4, 'samples, or pairs, per batch'),
  'batch.gradientAccumulation': setting(count, 1, 'batches per optimizer step'),
  'batch.maxLength': setting(count, 8192, 'maximum number of tokens of a sample, or of a packed row'),
  'batch.maxPatches': setting(count, null, "maximum number of tiles of an image; default: the checkpoint's own"),
  'batch.imageBackend': setting(
    imageBackend,
    null,
    'library whose resize of images is computed: torchvision or pillow; default: torchvision'
  ),
  'batch.packing': setting(flag, false, 'packs several samples into a row, each with its own attention; batch.size counts rows'),
  'batch.maxTiles': setting(count, null, 'maximum number of tiles of a packed row; default: no limit'),
  'batch.groupByLength': setting(flag, false, 'puts samples of similar length into the same batch'),
  'batch.jpegAugmentation': setting(flag, false, 'compresses images with JPEG of a random quality'),
  'optimizer.learningRate': setting(positive, 1e-5, 'peak learning rate'),
  'optimizer.schedule': setting(schedule, 'cosine', 'decay of the learning rate after the warm-up'),
  'optimizer.warmupRatio': setting(fraction, 0.03, 'warm-up steps as a fraction of all steps'),
  'optimizer.weightDecay': setting(nonNegative, 0.01, 'weight decay, except for norms and biases'),
  'optimizer.beta1': setting(fraction, 0.9, 'AdamW: decay of the first moment'),
  'optimizer.beta2': setting(fraction, 0.999, 'AdamW: decay of the second moment'),
  'optimizer.layerDecay': setting(upToOne, 1, 'layer-wise learning rate decay of the vision encoder'),
  'optimizer.maxGradNorm': setting(positive, 1, 'gradients are clipped to this global norm'),
  'visual.delta': setting(
    either(upToOne, oneOf(['random'] as const)),
    1,
    'V2PE: position increment of an image token; random: sampled for each image'
  ),
  'regularize.dropout': setting(fraction, 0, 'dropout of the outputs of the vision layers'),
  'regularize.dropPath': setting(fraction, 0, 'drop path rate of the last vision layer'),
  precision: setting(
    weightType,
    'float32',
    'type of matrix products: float32, or on a GPU bfloat16 or float16 (with loss scaling); trained weights stay float32'
  ),
  gradientCheckpointing: setting(flag, false, 'recomputes activations in the backward pass to save memory'),
  'save.steps': setting(count, 200, 'steps between two checkpoints'),
  'save.keepLast': setting(count, 2, 'number of latest checkpoints to keep, beside the best'),
  'save.dtype': setting(weightType, 'bfloat16', 'type of the saved weights'),
  'evaluate.steps': setting(count, 200, 'steps between two evaluations on the validation set'),
  'log.steps': setting(count, 10, 'steps between two lines of progress'),
  'log.tensorboard': setting(flag, true, 'writes event files for TensorBoard')
} as const

/** Names of settings before 0.2. Files, `--set` and checkpoints that use them are still read. */
export const aliases: Readonly<Record<string, keyof typeof settings>> = {
  heldOut: 'validation',
  checkpointing: 'gradientCheckpointing',
  'lora.targets': 'lora.targetModules',
  'loss.kind': 'loss.type',
  'batch.accumulation': 'batch.gradientAccumulation',
  'batch.grouped': 'batch.groupByLength',
  'batch.jpeg': 'batch.jpegAugmentation',
  'optimizer.rate': 'optimizer.learningRate',
  'optimizer.warmup': 'optimizer.warmupRatio',
  'optimizer.clip': 'optimizer.maxGradNorm',
  'save.every': 'save.steps',
  'save.keep': 'save.keepLast',
  'evaluate.every': 'evaluate.steps',
  'log.every': 'log.steps'
}
