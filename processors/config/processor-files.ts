import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import * as t from 'io-ts'
import { type Issues, issue, nameText, validateAll } from '../../lib/error.js'
import { readSmallFile } from '../../lib/files.js'
import type { Processor } from '../processor.js'
import { VISUAL_TOKENS } from '../text/placeholders.js'
import { sentencePieceTokenizer } from '../text/sentencepiece/sentencepiece-files.js'
import { type ImageConfig, isOriginal, type ProcessorConfig, type VideoConfig } from './processor-config.js'

/** Files of a checkpoint folder other than config.json and the weights. */
const fileNames = [
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'tokenizer.model',
  'generation_config.json',
  'chat_template.jinja',
  'chat_template.json',
  'processor_config.json',
  'preprocessor_config.json',
  'video_preprocessor_config.json'
] as const

type Files = ReadonlyMap<string, string | Uint8Array>

const readIfPresent = async (
  dir: string,
  name: string
): Promise<E.Either<Issues, readonly (readonly [string, Uint8Array])[]>> => {
  try {
    return E.right([[name, await readSmallFile(join(dir, name))]])
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    const path = join(dir, name)
    return code === 'ENOENT' ? E.right([]) : E.left([issue('Unreadable', `${path}: it cannot be read (${message})`, { path })])
  }
}

/** Bytes of the tokenizer, processor and generation files that a folder has. */
export const readProcessorFiles =
  (dir: string): TaskEither<Issues, Files> =>
  async () =>
    E.map((read: ReadonlyArray<readonly (readonly [string, Uint8Array])[]>) => new Map(read.flat()))(
      validateAll(await Promise.all(fileNames.map((name) => readIfPresent(dir, name))))
    )

const json = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`

/** Settings that images and videos share, in Transformers' format. */
const visualJson = (c: ImageConfig | VideoConfig) => ({
  do_convert_rgb: true,
  do_resize: c.doResize,
  size: { height: c.size.height, width: c.size.width },
  resample: c.resample,
  do_rescale: c.doRescale,
  rescale_factor: c.rescaleFactor,
  do_normalize: c.doNormalize,
  image_mean: c.mean,
  image_std: c.std
})

const imageJson = (c: ImageConfig) => ({
  ...visualJson(c),
  crop_to_patches: c.cropToPatches,
  min_patches: c.minPatches,
  max_patches: c.maxPatches,
  image_processor_type: 'GotOcr2ImageProcessor'
})

const videoJson = (c: VideoConfig) => ({
  ...visualJson(c),
  do_sample_frames: c.doSampleFrames,
  ...(c.numFrames === undefined ? {} : { num_frames: c.numFrames }),
  ...(c.fps === undefined ? {} : { fps: c.fps }),
  initial_shift: c.initialShift,
  video_processor_type: 'InternVLVideoProcessor'
})

/** Processor settings as files: nested sections for Transformers 5, and flat files for 4.52 and later. */
export const processorConfigFiles = ({ image, video, imageSeqLength }: ProcessorConfig): Files => {
  const [images, videos] = [imageJson(image), videoJson(video)]
  const both = { image_processor: images, video_processor: videos }
  const processor_class = 'InternVLProcessor'
  return new Map([
    ['processor_config.json', json({ image_seq_length: imageSeqLength, processor_class, ...both })],
    ['preprocessor_config.json', json({ ...images, processor_class })],
    ['video_preprocessor_config.json', json({ ...videos, processor_class })]
  ])
}

/** A tokenizer_config.json that names the visual tokens and needs none of OpenGVLab's code. */
export const visualTokenizerConfig = (source: string | Uint8Array | undefined): string => {
  const parsed: unknown = source === undefined ? {} : JSON.parse(Buffer.from(source).toString('utf8'))
  const config = t.UnknownRecord.is(parsed) ? parsed : {}
  const { auto_map, extra_special_tokens: extra, ...rest } = config
  const isInternLm = /^InternLM2Tokenizer/.test(nameText(rest.tokenizer_class)) // a class that Transformers has not
  const named = { ...VISUAL_TOKENS, ...(t.UnknownRecord.is(extra) ? extra : {}) }
  const missing = Object.entries(named).filter(([name]) => !Object.hasOwn(rest, name))
  return json({
    ...rest,
    ...(auto_map === undefined && !isInternLm ? {} : { tokenizer_class: 'PreTrainedTokenizerFast' }), // auto_map names Python code of the checkpoint
    extra_special_tokens: Object.fromEntries(missing),
    processor_class: 'InternVLProcessor'
  })
}

/** The files with the tokenizer.json equivalent of tokenizer.model, where a folder has only the latter. */
const withTokenizerJson = (files: Files): Files => {
  if (files.has('tokenizer.json') || files.has('vocab.json')) return files
  const converted = sentencePieceTokenizer(files, '')
  return converted && E.isRight(converted) ? new Map([...files, ['tokenizer.json', json(converted.right)]]) : files
}

/**
 * Processor files for saving a checkpoint in another layout. For `hf`, the settings that OpenGVLab's layout has in config.json are
 * written as processor files, and the chat template that it names as chat_template.jinja. All other files are copied.
 */
export const processorFilesFor = (target: 'hf' | 'original', processor: Processor, found: Files, config: unknown): Files => {
  const files = withTokenizerJson(found)
  if (target === 'original' || !isOriginal(config)) return files
  const written = new Map([
    ['tokenizer_config.json', visualTokenizerConfig(files.get('tokenizer_config.json'))],
    ['chat_template.jinja', processor.chatTemplate.source]
  ])
  const hasProcessor = files.has('processor_config.json')
  return new Map([...files, ...(hasProcessor ? [] : processorConfigFiles(processor.config)), ...written])
}
