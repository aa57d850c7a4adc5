import { readdir, realpath } from 'node:fs/promises'
import * as E from 'fp-ts/lib/Either.js'
import { selectEngine } from '../../lib/engines/index.js'
import { getOrThrow, InternVLError, type Issue, type Issues, issue, orThrow } from '../../lib/error.js'
import type { SmallFiles } from '../../lib/safetensors/write.js'
import { type ConvertModelOptions, convertModel } from '../../models/checkpoint/convert-model.js'
import type { Layout } from '../../models/checkpoint/layout.js'
import { type OpenCheckpoint, openCheckpoint } from '../../models/checkpoint/open-checkpoint.js'
import { type SaveModelOptions, saveModel } from '../../models/checkpoint/save-model.js'
import type { Changes } from '../../models/checkpoint/weight-changes.js'
import type { Json } from '../../models/config/config-fields.js'
import { type InternVLConfig, type OriginalProcessing, readConfigJson } from '../../models/config/parse-config.js'
import { precisionOf } from '../../models/quantization/precision.js'
import { isPacked } from '../../models/quantization/quantized-keys.js'
import { processorFilesFor, readProcessorFiles } from '../../processors/config/processor-files.js'
import { loadProcessor, type Processor } from '../../processors/processor.js'
import { endOfTurn } from './load.js'

/** The errors of all; one that several readers found, a missing file, stands there once. */
const issuesOf = (results: ReadonlyArray<E.Either<Issues, unknown>>): Issues => {
  const all = results.flatMap((result): readonly Issue[] => (E.isLeft(result) ? result.left : []))
  return all.filter((f, i) => all.findIndex((g) => g.message === f.message) === i) as unknown as Issues
}

/** Where no file says which token ends an answer Transformers would never stop: then the chat template's is told. */
const generationDefaults = (processor: Processor): string => {
  const { idOf, names } = processor.tokenizer
  const pad = idOf(names.pad_token ?? '')
  return `${JSON.stringify({ eos_token_id: endOfTurn(processor), ...(pad === undefined ? {} : { pad_token_id: pad }) }, null, 2)}\n`
}

/** What a folder has beside its weights. */
interface Surroundings {
  readonly processor: Processor
  readonly json: Json
  /** Small files, as a folder in the layout that is wanted has them. */
  readonly files: SmallFiles
}

const surroundings = async (dir: string, layout: Layout): Promise<E.Either<Issues, Surroundings>> => {
  const [processor, read, json] = [await loadProcessor(dir)(), await readProcessorFiles(dir)(), await readConfigJson(dir)()]
  if (E.isLeft(processor) || E.isLeft(read) || E.isLeft(json)) return E.left(issuesOf([processor, read, json]))
  const target = layout.startsWith('original') ? 'original' : 'hf'
  const files = processorFilesFor(target, processor.right, read.right, json.right)
  const stops = files.has('generation_config.json')
    ? []
    : [['generation_config.json', generationDefaults(processor.right)] as const]
  return E.right({ processor: processor.right, json: json.right, files: new Map([...files, ...stops]) })
}

/** Name of the conversation style that each decoder was published with. Source: the released InternVL2.5, 3 and 3.5, InternVL2-4B. */
const styles: Readonly<Partial<Record<InternVLConfig['textConfig']['modelType'], string>>> = {
  phi3: 'phi3-chat',
  gpt_oss: 'internvl3_5_gpt_oss'
}

/** What OpenGVLab's config.json says of pictures and prompts, from a processor's files. */
const processingOf = ({ image }: Processor['config'], config: InternVLConfig): OriginalProcessing => ({
  template: styles[config.textConfig.modelType] ?? 'internvl2_5',
  imageSize: [image.size.height, image.size.width],
  dynamicImageSize: image.cropToPatches,
  useThumbnail: image.useThumbnail,
  minDynamicPatch: image.minPatches,
  maxDynamicPatch: image.maxPatches,
  pad2square: false
})

const completed =
  ({ config: processing, tokenizer }: Processor) =>
  (config: InternVLConfig): InternVLConfig => ({
    ...config,
    imageTokenId: tokenizer.idOf(tokenizer.names.context_image_token ?? '<IMG_CONTEXT>') ?? config.imageTokenId,
    original: config.original ?? processingOf(processing, config)
  })

export interface SaveCheckpointOptions extends Omit<SaveModelOptions, 'files' | 'json'> {
  /** A checkpoint folder whose tokenizer, processor and generation files, and unknown fields of config.json, are taken over. */
  readonly processorFilesFrom?: string
}

/**
 * Saves a model as a checkpoint folder that this library and Transformers open. Throws an `InternVLError`.
 *
 * `await save('tuned', { config, params, dtype: 'bfloat16', processorFilesFrom: internvl.dir })`
 */
export const save = async (dir: string, { processorFilesFrom, ...options }: SaveCheckpointOptions): Promise<void> => {
  if (processorFilesFrom === undefined) return orThrow(saveModel(dir, options))
  const { processor, ...found } = getOrThrow(await surroundings(processorFilesFrom, options.layout ?? 'hf'))
  return orThrow(saveModel(dir, { ...options, ...found, config: completed(processor)(options.config) }))
}

const contentsOf = (dir: string): Promise<readonly string[]> =>
  readdir(dir).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return []
    throw new InternVLError([issue('WriteFailed', `${dir}: it cannot be written to (${error.message})`, { file: dir })])
  })

/** Refuses to write into a folder that is read, or into one that holds something. */
export const checkTarget = async (from: readonly string[], to: string, isForced: boolean): Promise<void> => {
  const refuse = (why: string) => {
    throw new InternVLError([issue('TargetRefused', `${to}: ${why}`, { file: to })])
  }
  const contents = await contentsOf(to)
  const [target, ...sources] = await Promise.all([to, ...from].map((dir) => realpath(dir).catch(() => dir)))
  if (sources.includes(target!)) refuse('it is the folder that is read; give another one')
  if (contents.length > 0 && !isForced) refuse('the folder is not empty; empty it, give another one, or force it')
}

export interface ConvertOptions extends Omit<ConvertModelOptions, 'files' | 'changes'> {
  /** Writes though the folder is not empty; what it holds of an earlier checkpoint is replaced. */
  readonly force?: boolean
}

export interface ConvertChangedOptions extends ConvertOptions {
  /** Further folders that are read. */
  readonly sources?: readonly string[]
  /** What is written with other numbers; `use` is called while what it reads is open. */
  readonly withChanges: (checkpoint: OpenCheckpoint, use: (changes: Changes) => Promise<Layout>) => Promise<Layout>
}

/** Opens a checkpoint for what is written to another folder, with the files beside its weights; it is open while `use` runs. */
const reading = async (
  from: string,
  to: string,
  { force = false, sources = [], layout }: Pick<ConvertChangedOptions, 'force' | 'sources' | 'layout'>,
  use: (checkpoint: OpenCheckpoint, files: SmallFiles) => Promise<Layout>
): Promise<Layout> => {
  await checkTarget([from, ...sources], to, force)
  const around = await surroundings(from, layout)
  const configure = E.isRight(around) ? { configure: completed(around.right.processor) } : {}
  const checkpoint = await openCheckpoint(from, configure)()
  try {
    if (E.isLeft(around) || E.isLeft(checkpoint)) throw new InternVLError(issuesOf([around, checkpoint]))
    return await use(checkpoint.right, around.right.files)
  } finally {
    if (E.isRight(checkpoint)) await checkpoint.right.files.close()
  }
}

/**
 * As `convert`, with some of the tensors changed on the way, piece by piece. A head that only repeats the embeddings is not written.
 * Throws an `InternVLError`.
 */
export const convertChanged = async (from: string, to: string, options: ConvertChangedOptions): Promise<Layout> => {
  const { force = false, sources = [], withChanges, ...rest } = options
  return reading(from, to, { force, sources, layout: rest.layout }, (opened, files) => {
    const checkpoint = { ...opened, stored: opened.plan }
    return withChanges(checkpoint, (changes) => orThrow(convertModel(checkpoint, to, { ...rest, changes, files })))
  })
}

/**
 * Converts a checkpoint folder to another layout, type of weights or fewer bits, piece by piece, so that memory does not depend on
 * its size; the layout that was written. Throws an `InternVLError`.
 *
 * `await convert('InternVL3-8B', 'InternVL3-8B-hf', { layout: 'hf', dtype: 'bfloat16' })`
 */
export const convert = async (from: string, to: string, { force = false, ...options }: ConvertOptions): Promise<Layout> => {
  precisionOf({ quantize: options.quantize }) // throws for what there is not before any file is opened
  return reading(from, to, { force, layout: options.layout }, async (checkpoint, files) => {
    // to pack and unpack is the engine's work
    if (options.quantize !== undefined || isPacked(checkpoint.stored)) await selectEngine()
    return orThrow(convertModel(checkpoint, to, { ...options, files }))
  })
}
