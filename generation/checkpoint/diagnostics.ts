import { type Issue, issue } from '../../lib/error.js'
import type { InspectedModel } from '../../models/checkpoint/inspect-model.js'
import { isJson, type Json } from '../../models/config/config-fields.js'
import { storedFormats } from '../../models/quantization/quantized-keys.js'
import type { Processor } from '../../processors/processor.js'
import { visualTokenText } from '../../processors/text/placeholders.js'
import type { GenerateOptions } from '../decoding/generation-options.js'
import { endOfTurn } from './load.js'

/** An inconsistency between the files of a folder that does not prevent loading, and how the library resolves it. */
export interface Diagnostic extends Issue {}

/** The parsed files of a checkpoint folder, as far as they are readable. */
export interface CheckpointFiles {
  readonly model: InspectedModel | undefined
  readonly processor: Processor | undefined
  readonly generation: GenerateOptions
  readonly json: (name: string) => Json
  readonly has: (name: string) => boolean
}

type Check = (parts: CheckpointFiles) => readonly Diagnostic[]

const isQuantizationFormat = (type: string): boolean => storedFormats.some((format) => format === type)

const storedTensors: Check = ({ model }) => {
  if (!model) return []
  const { buffers, head } = model.unread
  const types = model.tree.dtypes
    .filter((type) => !isQuantizationFormat(type))
    .map((type) =>
      type
        .toLowerCase()
        .replace('bf', 'bfloat')
        .replace(/^f(?=\d)/, 'float')
    )
  const configuredType = model.config.dtype
  const heads = {
    copy: 'lm_head.weight is stored although tie_word_embeddings is true; it equals the embeddings and is not read',
    own: 'lm_head.weight differs from the embeddings although tie_word_embeddings is true: the stored head is used',
    alone: 'lm_head.weight is stored without embeddings; tie_word_embeddings is true: the tensor is used for both'
  }
  const isTied = model.json.tie_word_embeddings !== false && model.config.dialect === 'hf'
  return [
    ...(buffers.length > 0
      ? [
          issue('Buffers', `${buffers.length} computed buffers are stored (the first is ${buffers[0]}): they are not read`, {
            buffers
          })
        ]
      : []),
    ...(head && (head !== 'own' || isTied) ? [issue('TiedHead', heads[head], { head })] : []),
    ...(configuredType && types.length > 0 && !types.includes(configuredType)
      ? [
          issue(
            'DtypeDiffers',
            `config.json says ${configuredType}, the weights are ${types.join(' and ')}: the stored types are read`
          )
        ]
      : [])
  ]
}

const contextToken: Check = ({ model, processor, json }) => {
  const configured = json('config.json').image_token_id
  const token = visualTokenText(processor?.tokenizer.names ?? {}, 'context_image_token')
  const id = processor?.tokenizer.idOf(token)
  if (!model || id === undefined || typeof configured !== 'number' || configured === id) return []
  return [
    issue(
      'ImageTokenDiffers',
      `config.json says image_token_id ${configured}; ${token} is ${id} in the tokenizer: the id of the tokenizer is used, because it encodes the prompts`,
      { expected: id, actual: configured }
    )
  ]
}

const side = (size: unknown): string =>
  isJson(size) ? `${size.height}x${size.width}` : size === undefined ? '384x384' : `${size}x${size}`
const list = (values: unknown): string => JSON.stringify(values ?? 'none')

/** The video processor section of a folder, if there is one. */
const videoSection = (json: CheckpointFiles['json']): Json | undefined => {
  const nested = json('processor_config.json').video_processor
  const section = isJson(nested) ? nested : json('video_preprocessor_config.json')
  return Object.keys(section).length > 0 ? section : undefined
}

const video: Check = ({ processor, json }) => {
  const section = videoSection(json)
  if (!section || !processor) return []
  const { image, video: used } = processor.config
  const imageSide = `${image.size.height}x${image.size.width}`
  if (side(section.size) !== imageSide)
    return [
      issue(
        'VideoSizeDiffers',
        `the video processor has ${side(section.size)} and mean ${list(section.image_mean)}, the image processor ${imageSide} and ${list(image.mean)}: ` +
          'videos use the size, mean and standard deviation of images, because all tiles have one size (Transformers uses those of the video processor, which the model rejects or sees wrongly)',
        { expected: image.size, actual: section.size }
      )
    ]
  const same = `${used.mean}` === `${image.mean}` && `${used.std}` === `${image.std}`
  if (same) return []
  const message = `the video processor has mean ${list(used.mean)}, the image processor ${list(image.mean)}: videos use their own, as in Transformers`
  return [issue('VideoMeanDiffers', message, { expected: image.mean, actual: used.mean })]
}

const idsIn = (value: unknown): readonly number[] => [value].flat().filter((id): id is number => typeof id === 'number')

/** The ids of a special token in each file that has one. */
const tokenIdsByFile = (
  { json, processor }: CheckpointFiles,
  name: 'eos_token' | 'pad_token'
): ReadonlyArray<readonly [string, readonly number[]]> => {
  const config = json('config.json')
  const decoder = config.text_config ?? config.llm_config
  const outer = idsIn(config[`${name}_id`])
  const token = processor?.tokenizer.idOf(processor.tokenizer.names[name] ?? '')
  const all = [
    ['generation_config.json', idsIn(json('generation_config.json')[`${name}_id`])],
    ['config.json', outer.length > 0 ? outer : idsIn(isJson(decoder) ? decoder[`${name}_id`] : undefined)],
    ['the tokenizer', idsIn(token)]
  ] as const
  return all.filter(([, ids]) => ids.length > 0)
}

const differ = (all: ReadonlyArray<readonly [string, readonly number[]]>): boolean =>
  new Set(all.map(([, ids]) => `${[...ids].sort((a, b) => a - b)}`)).size > 1
const listed = (all: ReadonlyArray<readonly [string, readonly number[]]>): string =>
  all.map(([file, ids]) => `${file} says ${ids.join(', ')}`).join('; ')

const specialTokens: Check = (parts) => {
  const { processor, generation } = parts
  if (!processor) return []
  const [eos, pad] = [tokenIdsByFile(parts, 'eos_token'), tokenIdsByFile(parts, 'pad_token')]
  const used = generation.eosTokenIds ?? endOfTurn(processor)
  const padId = processor.tokenizer.idOf(processor.tokenizer.names.pad_token ?? '')
  const turn = endOfTurn(processor)[0]
  const name = (id: number | undefined) => `${id} (${id === undefined ? 'none' : processor.tokenizer.tokenOf(id)})`
  return [
    ...(differ(eos)
      ? [issue('EndTokensDiffer', `end tokens differ: ${listed(eos)}; answers end at ${used.join(', ') || 'none'}`)]
      : []),
    ...(differ(pad)
      ? [
          issue(
            'PadTokensDiffer',
            `padding tokens differ: ${listed(pad)}; prompts are padded with ${padId ?? 'the end token'}, which attention masks`
          )
        ]
      : []),
    ...(turn !== undefined && !used.includes(turn)
      ? [
          issue(
            'TurnEndDiffers',
            `the chat template ends a turn with ${name(turn)}, which is not an end token (${used.join(', ') || 'there is none'}): answers continue after it; set eosTokenIds to change that`
          )
        ]
      : [])
  ]
}

const chatTemplate: Check = ({ processor, json, has }) => {
  const files = ['chat_template.json', 'processor_config.json', 'tokenizer_config.json']
  if (!processor || has('chat_template.jinja') || files.some((name) => json(name).chat_template)) return []
  const { template: named } = json('config.json')
  const instead =
    typeof named === 'string'
      ? `the template that config.json names, ${named}, is used`
      : 'the template of the published checkpoints is used, although the model may have been trained with another one'
  return [issue('NoChatTemplate', `there is no chat template: ${instead}`)]
}

const sizes: Check = ({ model, processor }) => {
  if (!model || !processor) return []
  const { config } = model
  const { image, imageSeqLength } = processor.config
  const { patchSize, imageSize } = config.visionConfig
  const patches = Math.floor(image.size.height / patchSize[0]) * Math.floor(image.size.width / patchSize[1])
  const tokens = Math.floor(patches * config.downsampleRatio ** 2)
  const [vocabulary, rows] = [processor.tokenizer.vocabSize, config.textConfig.vocabSize]
  const isTrained = image.size.height === imageSize[0] && image.size.width === imageSize[1]
  return [
    ...(isTrained
      ? []
      : [
          issue(
            'ImageSizeDiffers',
            `images are ${image.size.height}x${image.size.width}, the position embeddings of the vision tower ${imageSize.join('x')}: they are interpolated`
          )
        ]),
    ...(tokens === imageSeqLength
      ? []
      : [
          issue(
            'ImageSeqLengthDiffers',
            `a tile has ${tokens} image tokens, the processor expects ${imageSeqLength}: a question about an image will fail; set image_seq_length to ${tokens}`
          )
        ]),
    ...(vocabulary > rows
      ? [
          issue(
            'VocabularyLarger',
            `the tokenizer has ${vocabulary} tokens, the embeddings ${rows} rows: the model cannot read tokens beyond them`
          )
        ]
      : [])
  ]
}

const checks: readonly Check[] = [storedTensors, contextToken, video, specialTokens, chatTemplate, sizes]

/** Every diagnostic of a folder. */
export const diagnose: Check = (parts) => checks.flatMap((check) => check(parts))
