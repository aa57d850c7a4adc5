import { type Issue, issue } from '../../lib/error.js'
import type { InspectedModel } from '../../models/checkpoint/inspect-model.js'
import { isJson, type Json } from '../../models/config/config-fields.js'
import { storedForms } from '../../models/quantization/quantized-keys.js'
import type { Processor } from '../../processors/processor.js'
import type { GenerateOptions } from '../decoding/generation-options.js'
import { endOfTurn } from './load.js'

/** Something about a folder that a person should know, with what the library does about it. */
export interface Oddity extends Issue {}

/** The folder's files, read, as far as they can be. */
export interface Parts {
  readonly model: InspectedModel | undefined
  readonly processor: Processor | undefined
  readonly generation: GenerateOptions
  readonly json: (name: string) => Json
  readonly has: (name: string) => boolean
}

type Check = (parts: Parts) => readonly Oddity[]

const isPackedForm = (type: string): boolean => storedForms.some((form) => form === type)

const stored: Check = ({ model }) => {
  if (!model) return []
  const { buffers, head } = model.unread
  const types = model.tree.dtypes
    .filter((type) => !isPackedForm(type))
    .map((type) =>
      type
        .toLowerCase()
        .replace('bf', 'bfloat')
        .replace(/^f(?=\d)/, 'float')
    )
  const told = model.config.dtype
  const heads = {
    copy: 'lm_head.weight is stored though tie_word_embeddings is true; it equals the embeddings: it is left out',
    own: 'lm_head.weight differs from the embeddings though tie_word_embeddings is true: the stored head is used',
    alone: 'lm_head.weight is stored, and no embeddings; tie_word_embeddings is true: it serves as both'
  }
  const isTied = model.json.tie_word_embeddings !== false && model.config.dialect === 'hf'
  return [
    ...(buffers.length > 0
      ? [issue('Buffers', `${buffers.length} computed tensors are stored (${buffers[0]} first): they are not read`, { buffers })]
      : []),
    ...(head && (head !== 'own' || isTied) ? [issue('TiedHead', heads[head], { head })] : []),
    ...(told && types.length > 0 && !types.includes(told)
      ? [
          issue(
            'DtypeDiffers',
            `config.json says ${told}, the weights are ${types.join(' and ')}: they are read as what they are`
          )
        ]
      : [])
  ]
}

const contextToken: Check = ({ model, processor, json }) => {
  const said = json('config.json').image_token_id
  const token = processor?.tokenizer.names.context_image_token ?? '<IMG_CONTEXT>'
  const id = processor?.tokenizer.idOf(token)
  if (!model || id === undefined || typeof said !== 'number' || said === id) return []
  return [
    issue(
      'ImageTokenDiffers',
      `config.json says image_token_id ${said}; ${token} is ${id} in the tokenizer: the tokenizer's is used, since prompts are made with it`,
      { expected: id, actual: said }
    )
  ]
}

const side = (size: unknown): string =>
  isJson(size) ? `${size.height}x${size.width}` : size === undefined ? '384x384' : `${size}x${size}`
const list = (values: unknown): string => JSON.stringify(values ?? 'none')

/** The film section that a folder has, if it has one of its own. */
const videoSection = (json: Parts['json']): Json | undefined => {
  const nested = json('processor_config.json').video_processor
  const section = isJson(nested) ? nested : json('video_preprocessor_config.json')
  return Object.keys(section).length > 0 ? section : undefined
}

const video: Check = ({ processor, json }) => {
  const section = videoSection(json)
  if (!section || !processor) return []
  const { image, video: used } = processor.config
  const pictures = `${image.size.height}x${image.size.width}`
  if (side(section.size) !== pictures)
    return [
      issue(
        'VideoSizeDiffers',
        `the video processor has ${side(section.size)} and mean ${list(section.image_mean)}, pictures ${pictures} and ${list(image.mean)}: ` +
          "films take the pictures' size, mean and deviation, since a tile has one size (Transformers takes the film's, which the model refuses or sees wrongly)",
        { expected: image.size, actual: section.size }
      )
    ]
  const same = `${used.mean}` === `${image.mean}` && `${used.std}` === `${image.std}`
  if (same) return []
  const message = `the video processor has mean ${list(used.mean)}, pictures have ${list(image.mean)}: films take their own, as in Transformers`
  return [issue('VideoMeanDiffers', message, { expected: image.mean, actual: used.mean })]
}

const idsIn = (value: unknown): readonly number[] => [value].flat().filter((id): id is number => typeof id === 'number')

/** What each file says of a token, those that say something. */
const told = (
  { json, processor }: Parts,
  name: 'eos_token' | 'pad_token'
): ReadonlyArray<readonly [string, readonly number[]]> => {
  const config = json('config.json')
  const decoder = config.text_config ?? config.llm_config
  const own = idsIn(config[`${name}_id`])
  const token = processor?.tokenizer.idOf(processor.tokenizer.names[name] ?? '')
  const all = [
    ['generation_config.json', idsIn(json('generation_config.json')[`${name}_id`])],
    ['config.json', own.length > 0 ? own : idsIn(isJson(decoder) ? decoder[`${name}_id`] : undefined)],
    ['the tokenizer', idsIn(token)]
  ] as const
  return all.filter(([, ids]) => ids.length > 0)
}

const differ = (all: ReadonlyArray<readonly [string, readonly number[]]>): boolean =>
  new Set(all.map(([, ids]) => `${[...ids].sort((a, b) => a - b)}`)).size > 1
const listed = (all: ReadonlyArray<readonly [string, readonly number[]]>): string =>
  all.map(([file, ids]) => `${file} says ${ids.join(', ')}`).join('; ')

const ends: Check = (parts) => {
  const { processor, generation } = parts
  if (!processor) return []
  const [eos, pad] = [told(parts, 'eos_token'), told(parts, 'pad_token')]
  const used = generation.eosTokenIds ?? endOfTurn(processor)
  const filler = processor.tokenizer.idOf(processor.tokenizer.names.pad_token ?? '')
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
            `padding tokens differ: ${listed(pad)}; prompts are filled with ${filler ?? 'the end token'}, which the model does not see`
          )
        ]
      : []),
    ...(turn !== undefined && !used.includes(turn)
      ? [
          issue(
            'TurnEndDiffers',
            `the chat template ends a turn with ${name(turn)}, which is no end token (${used.join(', ') || 'there is none'}): answers go on after it; give eosTokenIds to change that`
          )
        ]
      : [])
  ]
}

const template: Check = ({ processor, json, has }) => {
  const files = ['chat_template.json', 'processor_config.json', 'tokenizer_config.json']
  if (!processor || has('chat_template.jinja') || files.some((name) => json(name).chat_template)) return []
  const { template: named } = json('config.json')
  const instead =
    typeof named === 'string'
      ? `the one that config.json names, ${named}, is used`
      : 'that of the published checkpoints is used; another model may have been trained with another'
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
            `pictures are ${image.size.height}x${image.size.width}, the vision tower's positions ${imageSize.join('x')}: positions are interpolated`
          )
        ]),
    ...(tokens === imageSeqLength
      ? []
      : [
          issue(
            'ImageSeqLengthDiffers',
            `a tile gives ${tokens} tokens, the processor leaves room for ${imageSeqLength}: a question about a picture will fail; mend image_seq_length`
          )
        ]),
    ...(vocabulary > rows
      ? [
          issue(
            'VocabularyLarger',
            `the tokenizer has ${vocabulary} tokens, the embeddings ${rows} rows: tokens beyond them cannot be read`
          )
        ]
      : [])
  ]
}

const checks: readonly Check[] = [stored, contextToken, video, ends, template, sizes]

/** All that is odd about a folder. */
export const odditiesOf: Check = (parts) => checks.flatMap((check) => check(parts))
