import { fileURLToPath } from 'node:url'
import * as E from 'fp-ts/lib/Either.js'
import { type Engine, type EngineOptions, selectEngine } from '../../lib/engines/index.js'
import { InternVLError, type Issue, type Issues, orThrow } from '../../lib/error.js'
import { disposeBeside, disposeParams } from '../../lib/params.js'
import { type LoadedModel, type LoadModelOptions, loadModel } from '../../models/checkpoint/load-model.js'
import { adapterBase, loadAdapter } from '../../models/lora/adapter.js'
import { absorbLora } from '../../models/lora/lora.js'
import { loadProcessor, type Processor } from '../../processors/processor.js'
import { readGenerationConfig } from '../decoding/generation-config.js'
import type { GenerateOptions } from '../decoding/generation-options.js'
import { type HubOptions, modelFolder } from '../hub/index.js'

/** The folder of the small model that ships with this package. */
export const demoModel: string = fileURLToPath(new URL('../../models/demo', import.meta.url))

export interface LoadOptions extends EngineOptions, HubOptions, Omit<LoadModelOptions, 'imageTokenId'> {
  /** Folder of a LoRA adapter in PEFT's format. It is merged into weights in float32, and stands beside packed ones. */
  readonly adapter?: string | undefined
}

/** A checkpoint folder, ready: what turns messages into tensors, tensors into logits, and how to choose tokens from them. */
export interface InternVLCheckpoint extends LoadedModel {
  readonly dir: string
  readonly engine: Engine
  readonly processor: Processor
  /** Defaults for `generate` from generation_config.json and the model's own limits. */
  readonly generation: GenerateOptions
}

/** The token that ends the model's turn in the chat template: the first special one after what an assistant said. */
export const endOfTurn = ({ render, tokenizer }: Processor): readonly number[] => {
  const said = 'a word of an assistant'
  const prompt = render(
    [
      { role: 'user', content: 'x' },
      { role: 'assistant', content: said }
    ],
    { addGenerationPrompt: false }
  )
  const after = E.isRight(prompt) ? prompt.right.slice(prompt.right.indexOf(said) + said.length) : ''
  const id = tokenizer.encode(after, { addSpecialTokens: false }).find(tokenizer.isSpecial)
  return id === undefined ? [] : [id]
}

/** Limits that the model itself sets; where no file says which token ends an answer, the chat template does. */
const defaultsOf = ({ config }: LoadedModel, processor: Processor): GenerateOptions => {
  const { maxPositionEmbeddings: trained, rope } = config.textConfig
  const stretch = rope.ropeType === 'dynamic' ? (rope.factor ?? 1) : 1
  return {
    eosTokenIds: endOfTurn(processor),
    maxPositionEmbeddings: Math.floor(trained * stretch),
    imageTokenId: config.imageTokenId
  }
}

/** A model with an adapter; the one without it is consumed. */
const adapted = async (loaded: LoadedModel, adapter: string): Promise<E.Either<Issues, LoadedModel>> => {
  const beside = await loadAdapter(adapter, loaded.params, loaded.module)()
  if (E.isLeft(beside)) {
    loaded.dispose()
    return beside
  }
  const params = absorbLora(beside.right)
  disposeBeside(params, loaded.params) // what the adapter replaced
  return E.right({ ...loaded, params, model: loaded.module.apply(params), dispose: () => disposeParams(params) })
}

const issuesOf = (result: E.Either<Issues, unknown>): readonly Issue[] => (E.isLeft(result) ? result.left : [])

/**
 * Opens a checkpoint in any published layout: a folder, or `org/name` of the hub, which is downloaded into Python's cache as far as
 * it is not there; by default the model that the adapter was made for, or the embedded demo model. All that is wrong with its files
 * is in one `InternVLError`.
 *
 * `const internvl = await load('OpenGVLab/InternVL3-1B-hf', { revision: 'main' })`
 */
export const load = async (name?: string, options: LoadOptions = {}): Promise<InternVLCheckpoint> => {
  const { adapter } = options
  const base = adapter === undefined ? undefined : await orThrow(adapterBase(adapter)) // before gigabytes are read
  const dir = await orThrow(modelFolder(name ?? base ?? demoModel, options))
  const engine = await selectEngine(options)
  const [processor, config] = [await loadProcessor(dir)(), await readGenerationConfig(dir)()]
  const imageTokenId = E.isRight(processor)
    ? processor.right.tokenizer.idOf(processor.right.tokenizer.names.context_image_token ?? '<IMG_CONTEXT>')
    : undefined
  const plain = await loadModel(dir, { ...options, imageTokenId })()
  const model = E.isRight(plain) && adapter !== undefined ? await adapted(plain.right, adapter) : plain
  if (E.isRight(model) && E.isRight(processor) && E.isRight(config)) {
    const generation = { ...defaultsOf(model.right, processor.right), ...config.right }
    return { ...model.right, dir, engine, processor: processor.right, generation }
  }
  if (E.isRight(model)) model.right.dispose()
  const issues = [...issuesOf(processor), ...issuesOf(config), ...issuesOf(model)]
  // one missing file may be reported by two readers
  throw new InternVLError(issues.filter((f, i) => issues.findIndex((g) => g.message === f.message) === i) as unknown as Issues)
}
