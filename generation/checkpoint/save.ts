import { readdir, realpath } from 'node:fs/promises'
import { sequenceT } from 'fp-ts/lib/Apply.js'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import { selectEngine } from '../../lib/engines/index.js'
import {
  distinctIssues,
  getOrThrow,
  InternVLError,
  type Issue,
  type Issues,
  issue,
  orThrow,
  validation,
  whenValid
} from '../../lib/error.js'
import { declarations, namedParameters } from '../../lib/params.js'
import { finishCommit } from '../../lib/safetensors/commit.js'
import type { SidecarFiles } from '../../lib/safetensors/write.js'
import { type ConvertModelOptions, convertModel } from '../../models/checkpoint/convert-model.js'
import type { Layout, Planned } from '../../models/checkpoint/layout.js'
import { keyIssues, type OpenCheckpoint, openCheckpoint } from '../../models/checkpoint/open-checkpoint.js'
import { type SaveModelOptions, saveModel } from '../../models/checkpoint/save-model.js'
import type { WeightChanges } from '../../models/checkpoint/weight-changes.js'
import type { Json } from '../../models/config/config-fields.js'
import { type InternVLConfig, type OriginalProcessing, readConfigJson } from '../../models/config/parse-config.js'
import { decoderFamilyOf } from '../../models/decoders/index.js'
import { modelFor } from '../../models/families.js'
import { precisionOf } from '../../models/quantization/precision.js'
import { isQuantized, splitFormat, splitHalf } from '../../models/quantization/quantized-keys.js'
import { processorFilesFor, readProcessorFiles } from '../../processors/config/processor-files.js'
import { loadProcessor, type Processor } from '../../processors/processor.js'
import { imageContextId } from '../../processors/text/placeholders.js'
import { endOfTurn } from './load.js'
import { type PartsOption, partFamilies } from './part-modules.js'

/** A generation_config.json with the end token of the chat template. Without any end token Transformers would never stop. */
const generationDefaults = (processor: Processor): string => {
  const { idOf, names } = processor.tokenizer
  const pad = idOf(names.pad_token ?? '')
  return `${JSON.stringify({ eos_token_id: endOfTurn(processor), ...(pad === undefined ? {} : { pad_token_id: pad }) }, null, 2)}\n`
}

/** The files of a folder beside its weights. */
interface OtherFiles {
  readonly processor: Processor
  readonly json: Json
  /** Tokenizer, processor and generation files in the target layout. */
  readonly files: SidecarFiles
}

const readOtherFiles = async (dir: string, layout: Layout): Promise<E.Either<Issues, OtherFiles>> => {
  const commit = await finishCommit(dir)()
  if (E.isLeft(commit)) return commit
  const read = [await loadProcessor(dir)(), await readProcessorFiles(dir)(), await readConfigJson(dir)()] as const
  const target = layout.startsWith('original') ? 'original' : 'hf'
  return pipe(
    sequenceT(validation)(...read),
    E.bimap(distinctIssues, ([processor, sources, json]) => {
      const files = processorFilesFor(target, processor, sources, json)
      const defaults = files.has('generation_config.json')
        ? []
        : [['generation_config.json', generationDefaults(processor)] as const]
      return { processor, json, files: new Map([...files, ...defaults]) }
    })
  )
}

/** The image and prompt settings of OpenGVLab's config.json, from a processor's files. */
const imageProcessing = ({ image }: Processor['config'], config: InternVLConfig): OriginalProcessing => ({
  template: decoderFamilyOf(config.textConfig).conversationTemplate ?? 'internvl2_5',
  imageSize: [image.size.height, image.size.width],
  dynamicImageSize: image.cropToPatches,
  useThumbnail: image.useThumbnail,
  minDynamicPatch: image.minPatches,
  maxDynamicPatch: image.maxPatches,
  pad2square: false
})

const completeConfig =
  ({ config: processing, tokenizer }: Processor) =>
  (config: InternVLConfig): InternVLConfig => ({
    ...config,
    imageTokenId: imageContextId(tokenizer) ?? config.imageTokenId,
    original: config.original ?? imageProcessing(processing, config)
  })

export interface SaveCheckpointOptions extends Omit<SaveModelOptions, 'files' | 'json'> {
  /** A checkpoint folder whose tokenizer, processor and generation files, and unknown fields of config.json, are copied. */
  readonly processorFilesFrom?: string
}

/** Parameters whose keys or shapes are not those of the configuration. */
const parameterIssues = (dir: string, { config, params, tensors }: SaveCheckpointOptions): readonly Issue[] => {
  const module = modelFor(config)
  const columns = new Map(declarations(module).map(([path, { shape }]) => [path, shape.at(-1)]))
  const stored = Object.entries(tensors ?? Object.fromEntries(namedParameters(params))).map(([key, { shape }]): Planned => {
    const { path } = splitHalf(key) // a weight in 16 bits is saved under its path
    const unpacked = path === key ? shape : [shape[0]!, columns.get(path) ?? shape[1]!]
    return { key: path, shape: unpacked, dtype: splitFormat(path).format ? 'I32' : 'F32', parts: [] }
  })
  return keyIssues(module, stored).map((found) => ({
    ...found,
    message: `${dir}: not saved, because the parameters do not fit the configuration: ${found.message}; save with a config that describes them`
  }))
}

/**
 * Saves a model as a checkpoint folder that this library and Transformers can load. Throws an `InternVLError`; parameters whose
 * keys or shapes differ from the configuration, such as a replaced projector, are refused, because `load` could not read them.
 *
 * `await save('tuned', { config, params, dtype: 'bfloat16', processorFilesFrom: internvl.dir })`
 */
export const save = async (dir: string, { processorFilesFrom, ...options }: SaveCheckpointOptions): Promise<void> => {
  getOrThrow(whenValid(parameterIssues(dir, options), () => undefined))
  if (processorFilesFrom === undefined) return orThrow(saveModel(dir, options))
  const { processor, ...found } = getOrThrow(await readOtherFiles(processorFilesFrom, options.layout ?? 'hf'))
  return orThrow(saveModel(dir, { ...options, ...found, config: completeConfig(processor)(options.config) }))
}

const contentsOf = (dir: string): Promise<readonly string[]> =>
  readdir(dir).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return []
    throw new InternVLError([issue('WriteFailed', `${dir}: cannot be written (${error.message})`, { file: dir })])
  })

/** Throws an `InternVLError` if the target is a source folder, or is not empty and `isForced` is false. */
export const checkTarget = async (from: readonly string[], to: string, isForced: boolean): Promise<void> => {
  const refuse = (why: string) => {
    throw new InternVLError([issue('TargetRefused', `${to}: ${why}`, { file: to })])
  }
  const contents = await contentsOf(to)
  const [target, ...sources] = await Promise.all([to, ...from].map((dir) => realpath(dir).catch(() => dir)))
  if (sources.includes(target!)) refuse('the target is the source folder; give another folder')
  if (contents.length > 0 && !isForced) refuse('the folder is not empty; empty it, give another folder, or use force')
}

export interface ConvertOptions extends Omit<ConvertModelOptions, 'files' | 'changes'> {
  /** Modules of the caller that config.json names as `custom_parts`; see `load`. */
  readonly parts?: PartsOption | undefined
  /** Write into a folder that is not empty; the files of an earlier checkpoint are replaced. */
  readonly force?: boolean
}

export interface ConvertChangedOptions extends ConvertOptions {
  /** Further source folders. */
  readonly sources?: readonly string[]
  /**
   * Makes the weight changes and passes them to `use`, which is called while the checkpoint is open, with the checkpoint or a variant of
   * the same files.
   */
  readonly withChanges: (
    checkpoint: OpenCheckpoint,
    use: (changes: WeightChanges, checkpoint: OpenCheckpoint) => Promise<Layout>
  ) => Promise<Layout>
}

/** Runs `use` with a source checkpoint and the other files of its folder, and closes the checkpoint afterwards. */
const withCheckpoint = async (
  from: string,
  to: string,
  { force = false, sources = [], layout, parts: given }: Pick<ConvertChangedOptions, 'force' | 'sources' | 'layout' | 'parts'>,
  use: (checkpoint: OpenCheckpoint, files: SidecarFiles) => Promise<Layout>
): Promise<Layout> => {
  await checkTarget([from, ...sources], to, force)
  const others = await readOtherFiles(from, layout)
  const configure = E.isRight(others) ? { configure: completeConfig(others.right.processor) } : {}
  const checkpoint = await openCheckpoint(from, { ...configure, parts: await partFamilies(given) })()
  try {
    const both = pipe(sequenceT(validation)(others, checkpoint), E.mapLeft(distinctIssues), getOrThrow)
    return await use(both[1], both[0].files)
  } finally {
    if (E.isRight(checkpoint)) await checkpoint.right.files.close()
  }
}

/**
 * Like `convert`, with weight changes applied piece by piece. A head that equals the embeddings is not written. Throws an
 * `InternVLError`.
 */
export const convertChanged = async (from: string, to: string, options: ConvertChangedOptions): Promise<Layout> => {
  const { force = false, sources = [], parts, withChanges, ...rest } = options
  return withCheckpoint(from, to, { force, sources, parts, layout: rest.layout }, (opened, files) => {
    const checkpoint = { ...opened, stored: opened.plan }
    return withChanges(checkpoint, (changes, variant) => orThrow(convertModel(variant, to, { ...rest, changes, files })))
  })
}

/**
 * Converts a checkpoint folder to another layout, weight type or quantization, piece by piece, so that memory does not depend on
 * the size of the model. Returns the layout that was written. Throws an `InternVLError`.
 *
 * `await convert('InternVL3-8B', 'InternVL3-8B-hf', { layout: 'hf', dtype: 'bfloat16' })`
 */
export const convert = async (
  from: string,
  to: string,
  { force = false, parts, ...options }: ConvertOptions
): Promise<Layout> => {
  precisionOf({ quantize: options.quantize }) // throws for an unknown precision before any file is opened
  return withCheckpoint(from, to, { force, parts, layout: options.layout }, async (checkpoint, files) => {
    // the engine packs and unpacks quantized weights
    if (options.quantize !== undefined || isQuantized(checkpoint.stored)) await selectEngine()
    return orThrow(convertModel(checkpoint, to, { ...options, files }))
  })
}
