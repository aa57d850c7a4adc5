import { fileURLToPath } from 'node:url'
import * as E from 'fp-ts/lib/Either.js'
import { type Engine, type EngineOptions, selectEngine } from '../lib/engines/index.js'
import { type Fault, type Faults, InternVLError, orThrow } from '../lib/fault.js'
import { type LoadedModel, type LoadModelOptions, loadModel } from '../models/load.js'
import { loadProcessor, type Processor } from '../processors/processor.js'
import { readGenerationConfig } from './config.js'
import { type HubOptions, modelFolder } from './hub/index.js'
import type { GenerateOptions } from './options.js'

/** The folder of the small model that ships with this package. */
export const demoModel: string = fileURLToPath(new URL('../models/demo', import.meta.url))

export interface LoadOptions extends EngineOptions, HubOptions, Omit<LoadModelOptions, 'imageTokenId'> {}

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

const faultsOf = (result: E.Either<Faults, unknown>): readonly Fault[] => (E.isLeft(result) ? result.left : [])

/**
 * Opens a checkpoint in any published layout: a folder, or `org/name` of the hub, which is downloaded into Python's cache as far as
 * it is not there; by default the embedded demo model. All that is wrong with its files is in one `InternVLError`.
 *
 * `const internvl = await load('OpenGVLab/InternVL3-1B-hf', { revision: 'main' })`
 */
export const load = async (name: string = demoModel, options: LoadOptions = {}): Promise<InternVLCheckpoint> => {
  const dir = await orThrow(modelFolder(name, options))
  const engine = await selectEngine(options)
  const [processor, config] = [await loadProcessor(dir)(), await readGenerationConfig(dir)()]
  const imageTokenId = E.isRight(processor)
    ? processor.right.tokenizer.idOf(processor.right.tokenizer.names.context_image_token ?? '<IMG_CONTEXT>')
    : undefined
  const model = await loadModel(dir, { ...options, imageTokenId })()
  if (E.isRight(model) && E.isRight(processor) && E.isRight(config)) {
    const generation = { ...defaultsOf(model.right, processor.right), ...config.right }
    return { ...model.right, dir, engine, processor: processor.right, generation }
  }
  if (E.isRight(model)) model.right.dispose()
  const faults = [...faultsOf(processor), ...faultsOf(config), ...faultsOf(model)]
  // one missing file may be reported by two readers
  throw new InternVLError(faults.filter((f, i) => faults.findIndex((g) => g.message === f.message) === i) as unknown as Faults)
}
