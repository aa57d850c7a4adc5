import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import * as t from 'io-ts'
import { type Issues, issue } from '../../lib/error.js'
import { collect } from '../collect.js'
import type { Processor } from '../processor.js'
import { type ImageConfig, isOriginal, type ProcessorConfig, type VideoConfig } from './processor-config.js'

/** Small files of a checkpoint folder that are neither config.json nor weights. */
const names = [
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

const readIfThere = async (dir: string, name: string): Promise<E.Either<Issues, readonly (readonly [string, Uint8Array])[]>> => {
  try {
    return E.right([[name, await readFile(join(dir, name))]])
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    const path = join(dir, name)
    return code === 'ENOENT' ? E.right([]) : E.left([issue('Unreadable', `${path}: it cannot be read (${message})`, { path })])
  }
}

/** Tokenizer, processor and generation files of a folder, byte for byte, those that it has. */
export const readProcessorFiles =
  (dir: string): TaskEither<Issues, Files> =>
  async () =>
    E.map((read: ReadonlyArray<readonly (readonly [string, Uint8Array])[]>) => new Map(read.flat()))(
      collect(await Promise.all(names.map((name) => readIfThere(dir, name))))
    )

const json = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`

/** What pictures and films have in common, as Transformers writes it. */
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

/** The processor's numbers as files: in sections, which Transformers 5 reads, and apart, which 4.52 and later do. */
const configFiles = ({ image, video, imageSeqLength }: ProcessorConfig): Files => {
  const [pictures, films] = [imageJson(image), videoJson(video)]
  const both = { image_processor: pictures, video_processor: films }
  const processor_class = 'InternVLProcessor'
  return new Map([
    ['processor_config.json', json({ image_seq_length: imageSeqLength, processor_class, ...both })],
    ['preprocessor_config.json', json({ ...pictures, processor_class })],
    ['video_preprocessor_config.json', json({ ...films, processor_class })]
  ])
}

/** Names that `InternVLProcessor` asks its tokenizer for. */
const pictureTokens = {
  start_image_token: '<img>',
  end_image_token: '</img>',
  context_image_token: '<IMG_CONTEXT>',
  video_token: '<video>'
} as const

/** tokenizer_config.json that needs no code of OpenGVLab's, and names the picture tokens. */
const tokenizerConfig = (source: string | Uint8Array | undefined): string => {
  const parsed: unknown = source === undefined ? {} : JSON.parse(Buffer.from(source).toString('utf8'))
  const config = t.UnknownRecord.is(parsed) ? parsed : {}
  const { auto_map, extra_special_tokens: extra, ...rest } = config
  const named = { ...pictureTokens, ...(t.UnknownRecord.is(extra) ? extra : {}) }
  const told = Object.entries(named).filter(([name]) => !Object.hasOwn(rest, name))
  return json({
    ...rest,
    ...(auto_map === undefined ? {} : { tokenizer_class: 'PreTrainedTokenizerFast' }), // its class was code beside the weights
    extra_special_tokens: Object.fromEntries(told),
    processor_class: 'InternVLProcessor'
  })
}

/**
 * The files of a folder as another folder needs them. One in OpenGVLab's layout says in its config.json what Transformers has in
 * processor files: those are written for `hf`, with the chat template that its name stands for. All others are copied.
 */
export const processorFilesFor = (target: 'hf' | 'original', processor: Processor, files: Files, config: unknown): Files => {
  if (target === 'original' || !isOriginal(config)) return files
  const written = new Map([
    ['tokenizer_config.json', tokenizerConfig(files.get('tokenizer_config.json'))],
    ['chat_template.jinja', processor.chatTemplate.source]
  ])
  const hasProcessor = files.has('processor_config.json')
  return new Map([...files, ...(hasProcessor ? [] : configFiles(processor.config)), ...written])
}
