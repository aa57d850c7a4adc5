import { emitWarning } from 'node:process'
import { fileURLToPath } from 'node:url'
import { sequenceS } from 'fp-ts/lib/Apply.js'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import { type Engine, type EngineOptions, selectEngine } from '../../lib/engines/index.js'
import { distinctIssues, getOrThrow, type Issues, orThrow, validation, valueText } from '../../lib/error.js'
import { disposeExcept, disposeParams } from '../../lib/params.js'
import {
  bindModel,
  type InternVLModule,
  type LoadedModel,
  type LoadModelOptions,
  loadModel
} from '../../models/checkpoint/load-model.js'
import { modelFor } from '../../models/families.js'
import type { InternVL } from '../../models/internvl/internvl.js'
import { adapterBase, adapterUntiesHead, loadAdapter } from '../../models/lora/adapter.js'
import { mergeLoraInPlace } from '../../models/lora/lora.js'
import { untied } from '../../models/lora/untied.js'
import { type LoadProcessorOptions, loadProcessor, type Processor } from '../../processors/processor.js'
import { imageContextId } from '../../processors/text/placeholders.js'
import { readGenerationConfig } from '../decoding/generation-config.js'
import type { GenerateOptions } from '../decoding/generation-options.js'
import { type FeatureCache, featureCache } from '../feature-cache.js'
import { type HubOptions, modelFolder } from '../hub/index.js'
import { disposeOnce, throwsWhenDisposed } from './disposable.js'
import { nonFiniteWarning } from './non-finite-weights.js'
import { type PartsOption, partFamilies } from './part-modules.js'

/** Folder of the demo model that ships with this package. */
export const demoModel: string = fileURLToPath(new URL('../../models/demo', import.meta.url))

export interface LoadOptions
  extends EngineOptions,
    HubOptions,
    LoadProcessorOptions,
    Omit<LoadModelOptions, 'imageTokenId' | 'idOf' | 'parts'> {
  /** Folder of a LoRA adapter in PEFT's format. The adapter is merged into float32 weights, and applied beside quantized ones. */
  readonly adapter?: string | undefined
  /** Modules of the caller that config.json names as `custom_parts`: their kinds, or a JavaScript module that exports them. */
  readonly parts?: PartsOption | undefined
}

/** A loaded checkpoint: processor, model and generation defaults. `dispose` frees the parameters; a later call throws `Disposed`. */
export interface InternVLCheckpoint extends LoadedModel {
  readonly dir: string
  readonly engine: Engine
  readonly processor: Processor
  /** Defaults of `generate`, from generation_config.json and the limits of the model. */
  readonly generation: GenerateOptions
  /** Image features of `model`, shared by all chat sessions. */
  readonly features: FeatureCache
  /**
   * The same checkpoint with another module bound to its parameters, such as one with taps. Both share their parameters: `dispose` of
   * either frees them.
   */
  readonly withModule: (module: InternVLModule) => InternVLCheckpoint
}

/** The end-of-turn token of the chat template: the first special token after an assistant's message; none if there is no such token. */
export const endOfTurn = ({ render, tokenizer }: Processor): readonly number[] => {
  const content = 'a word of an assistant'
  const prompt = render(
    [
      { role: 'user', content: 'x' },
      { role: 'assistant', content }
    ],
    { addGenerationPrompt: false }
  )
  const after = E.isRight(prompt) ? prompt.right.slice(prompt.right.indexOf(content) + content.length) : ''
  const id = tokenizer.encode(after, { addSpecialTokens: false }).find(tokenizer.isSpecial)
  return id === undefined ? [] : [id]
}

/** Generation defaults from the configuration and, for the end token, the chat template. */
const defaultOptions = ({ config }: LoadedModel, processor: Processor): GenerateOptions => {
  const { maxPositionEmbeddings: trained, rope } = config.textConfig
  const ropeFactor = rope.ropeType === 'dynamic' ? (rope.factor ?? 1) : 1
  return {
    eosTokenIds: endOfTurn(processor),
    maxPositionEmbeddings: Math.floor(trained * ropeFactor),
    imageTokenId: config.imageTokenId
  }
}

/** The model, with a head of its own where the adapter gives embeddings and head different weights. Takes over the parameters. */
const withOwnHead = async (loaded: LoadedModel, adapter: string): Promise<E.Either<Issues, LoadedModel>> => {
  if (!loaded.config.tieWordEmbeddings) return E.right(loaded)
  const unties = await adapterUntiesHead(adapter)()
  if (E.isLeft(unties) || !unties.right) return E.isLeft(unties) ? unties : E.right(loaded)
  const { config, params } = untied(loaded.config, loaded.params)
  return E.right({ ...loaded, config, params, module: modelFor(config), dispose: () => disposeParams(params) })
}

/** The model with an adapter applied. Takes over the parameters of `plain`. */
const withAdapter = async (plain: LoadedModel, adapter: string, options: LoadOptions): Promise<E.Either<Issues, LoadedModel>> => {
  const separated = await withOwnHead(plain, adapter)
  const loaded = E.isRight(separated) ? separated.right : plain
  const { config, module } = loaded
  const adapterParams = E.isRight(separated) ? await loadAdapter(adapter, loaded.params, module, config.textConfig)() : separated
  if (E.isLeft(adapterParams)) {
    loaded.dispose()
    return adapterParams
  }
  const params = mergeLoraInPlace(adapterParams.right)
  disposeExcept(params, loaded.params) // tensors that the adapter replaced
  const model = bindModel(module, params, options)
  return E.right({ ...loaded, params, model, dispose: () => disposeParams(params) })
}

/**
 * The checkpoint of a loaded model, with its feature cache; after `dispose` every call of the model throws an `InternVLError` with the
 * tag `Disposed`.
 */
export const checkpointOf = (
  loaded: LoadedModel,
  rest: Pick<InternVLCheckpoint, 'dir' | 'engine' | 'processor' | 'generation'>,
  options: LoadOptions
): InternVLCheckpoint => {
  const caches: FeatureCache[] = []
  const parameters = disposeOnce(() => {
    loaded.dispose()
    for (const features of caches) features.clear()
  })
  const bound = (module: InternVLModule, unchecked: InternVL): InternVLCheckpoint => {
    const model = throwsWhenDisposed(unchecked, parameters)
    const features = featureCache(model)
    caches.push(features)
    const withModule = (other: InternVLModule) => bound(other, bindModel(other, loaded.params, options))
    return { ...loaded, ...rest, module, model, features, withModule, dispose: parameters.dispose }
  }
  return bound(loaded.module, loaded.model)
}

/**
 * Loads a checkpoint in any published layout: a folder, or `org/name` of the hub, whose missing files are downloaded into the
 * cache of Python's huggingface_hub; by default the base model of the adapter, or the embedded demo model. Throws one
 * `InternVLError` with all errors of the files; damaged weights (NaN, infinities) in norms and biases are a warning.
 *
 * `const internvl = await load('OpenGVLab/InternVL3-1B-hf', { revision: 'main' })`
 */
export const load = async (name?: string, options: LoadOptions = {}): Promise<InternVLCheckpoint> => {
  const { adapter } = options
  for (const [argument, value] of Object.entries({ name, adapter }))
    if (value !== undefined && typeof value !== 'string')
      throw new RangeError(`load: ${argument}: expected a folder or org/name as a text, got ${valueText(value)}`)
  const base = adapter === undefined ? undefined : await orThrow(adapterBase(adapter)) // fails before gigabytes are read
  const dir = await orThrow(modelFolder(name ?? base ?? demoModel, options))
  const engine = await selectEngine(options)
  const [processor, config] = [await loadProcessor(dir, options)(), await readGenerationConfig(dir)()]
  const tokenizer = E.isRight(processor) ? processor.right.tokenizer : undefined
  const [imageTokenId, idOf] = [tokenizer && imageContextId(tokenizer), tokenizer?.idOf]
  const parts = await partFamilies(options.parts)
  const plain = await loadModel(dir, { ...options, imageTokenId, idOf, parts })()
  const loaded = E.isRight(plain) && adapter !== undefined ? await withAdapter(plain.right, adapter, options) : plain
  const all = pipe(sequenceS(validation)({ processor, config, loaded }), E.mapLeft(distinctIssues))
  if (E.isLeft(all) && E.isRight(loaded)) loaded.right.dispose()
  const warning = E.isRight(all) ? nonFiniteWarning(dir, all.right.loaded.params) : undefined
  if (warning !== undefined) (options.onWarning ?? options.onRemark ?? emitWarning)(warning)
  return pipe(all, getOrThrow, ({ processor, config, loaded }) =>
    checkpointOf(loaded, { dir, engine, processor, generation: { ...defaultOptions(loaded, processor), ...config } }, options)
  )
}
