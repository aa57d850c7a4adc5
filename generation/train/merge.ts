import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { type EngineName, selectEngine } from '../../lib/engines/index.js'
import { getOrThrow, InternVLError, type Issue, type Issues, issue, orThrow } from '../../lib/error.js'
import { exists } from '../../lib/files.js'
import { declarations, shapeIssues } from '../../lib/params.js'
import { openSafetensors, type TensorFiles } from '../../lib/safetensors/read.js'
import { storedMatrix } from '../../lib/safetensors/stored-matrix.js'
import type { OpenCheckpoint } from '../../models/checkpoint/open-checkpoint.js'
import type { WeightType } from '../../models/checkpoint/save-model.js'
import {
  addLoraUpdate,
  composeChanges,
  type LowRankUpdate,
  replaceWeight,
  type WeightChange,
  type WeightChanges
} from '../../models/checkpoint/weight-changes.js'
import type { Json } from '../../models/config/config-fields.js'
import { modelFor } from '../../models/families.js'
import { adapterBase, adapterConfigFile, adapterUntiesHead, openAdapter } from '../../models/lora/adapter.js'
import { pathWithoutLora, type Shapes } from '../../models/lora/lora.js'
import { untiedCheckpoint } from '../../models/lora/untied.js'
import { isQuantized } from '../../models/quantization/quantized-keys.js'
import { demoModel } from '../checkpoint/load.js'
import { convertChanged } from '../checkpoint/save.js'
import { modelFolder } from '../hub/index.js'
import { lastCheckpoint, readCheckpointMetadata, trainedFile } from './train-checkpoint.js'
import { type TrainConfig, trainConfig } from './train-config.js'
import { loraScaling, trainedShapes } from './trainable.js'

/** A checkpoint of a training run. */
interface RunCheckpoint {
  readonly checkpoint: string
  readonly config: TrainConfig
}

/** The trained weights in a folder, an adapter or a checkpoint of a run, and the name of their base model. */
interface TrainedWeights {
  readonly base: string | undefined
  readonly adapter?: string
  readonly run?: RunCheckpoint
}

export interface MergeOptions {
  /** The base model. Default: the model that the adapter or the checkpoint names. */
  readonly model?: string | undefined
  /** Type of the written weights. Default: the type in the base model. */
  readonly dtype?: WeightType | undefined
  /** Writes into a folder that is not empty. */
  readonly force?: boolean
  readonly engine?: EngineName | undefined
  /** Returns the folder of a model. Default: downloads models of the hub without showing progress. */
  readonly resolveModel?: (model: string) => Promise<string>
  /** Called with the bytes read so far and the total number of bytes. */
  readonly onProgress?: (done: number, total: number) => void
}

/** The folder itself if the folder is a checkpoint, or the last checkpoint of a run with this output folder. */
const checkpointIn = async (source: string): Promise<string | undefined> =>
  (await exists(join(source, 'state.json')))
    ? source
    : ((await lastCheckpoint(join(source, 'checkpoints'))) ?? (await lastCheckpoint(source)))

const findTrainedWeights = async (source: string): Promise<TrainedWeights> => {
  if (await exists(join(source, adapterConfigFile))) return { adapter: source, base: await orThrow(adapterBase(source)) }
  const checkpoint = await checkpointIn(source)
  if (checkpoint === undefined) {
    const reason = (await exists(source))
      ? `the folder contains neither ${adapterConfigFile} nor checkpoints of a training run`
      : 'no such folder'
    const message = `${source}: ${reason}; give a PEFT adapter, the output of \`internvl train\` or one of its checkpoints`
    throw new InternVLError([issue('NothingToMerge', message, { file: source })])
  }
  const { settings } = await orThrow(readCheckpointMetadata(checkpoint))
  const config = getOrThrow(trainConfig((settings ?? {}) as Json, join(checkpoint, 'state.json')))
  return { base: config.model ?? undefined, run: { checkpoint, config } }
}

/** Throws the issues, with a first line that says that the checkpoint belongs to another model. */
const throwMismatch = ({ checkpoint, config }: RunCheckpoint, dir: string, issues: readonly Issue[]): void => {
  if (issues.length === 0) return
  const message = `${checkpoint}: this checkpoint does not fit ${dir}; its base model is ${config.model}`
  throw new InternVLError([issue('CheckpointMismatch', message, { checkpoint, model: dir }), ...issues])
}

/** The shapes of a checkpoint's parameters. */
const shapesOf = ({ config }: OpenCheckpoint): Shapes =>
  new Map(declarations(modelFor(config)).map(([path, { shape }]) => [path, shape]))

/** The change of each parameter of which the adapter holds weights, and the checkpoint that they change. */
const adapterChanges = async (adapter: string, opened: OpenCheckpoint) => {
  const checkpoint = (await orThrow(adapterUntiesHead(adapter))) ? untiedCheckpoint(opened) : opened
  const { files, updates, parameters } = await orThrow(openAdapter(adapter, shapesOf(checkpoint), checkpoint.config.textConfig))
  const changes = new Map<string, WeightChange>([...parameters].map(([path, matrix]) => [path, replaceWeight(matrix)]))
  for (const [module, update] of updates) {
    const path = update.experts > 1 ? module : `${module}.weight`
    const [base, change] = [changes.get(path), addLoraUpdate(update)]
    changes.set(path, base ? composeChanges(base, change) : change)
  }
  return { files, changes, checkpoint }
}

/** The LoRA update of a weight in a checkpoint of a run; undefined for a weight without LoRA. */
const storedUpdate = (files: TensorFiles, path: string, config: TrainConfig): LowRankUpdate | undefined => {
  const [A, B, vector] = ['lora_A', 'lora_B', 'lora_magnitude_vector'].map((part) => files.entries.get(`${path}.${part}`))
  if (!A || !B) return undefined
  const magnitude = vector && storedMatrix(files, vector)
  return { A: storedMatrix(files, A), B: storedMatrix(files, B), magnitude, scaling: loraScaling(config) }
}

const checkpointChanges = (files: TensorFiles, config: TrainConfig): WeightChanges => {
  const paths = [...files.entries.keys()].map((path) => pathWithoutLora(path.replace(/\.lora_(A|B|magnitude_vector)$/, '')))
  return new Map(
    [...new Set(paths)].map((path): readonly [string, WeightChange] => {
      const base = files.entries.get(path) ?? files.entries.get(`${path}.base`)
      const [replaced, update] = [base && replaceWeight(storedMatrix(files, base)), storedUpdate(files, path, config)]
      const change = update && addLoraUpdate(update)
      return [path, replaced && change ? composeChanges(replaced, change) : (replaced ?? change)!] // first a trained base weight
    })
  )
}

/** The change of each parameter that a run trained. */
const runChanges = async (run: RunCheckpoint, checkpoint: OpenCheckpoint) => {
  const { dir } = checkpoint
  const expected = trainedShapes(shapesOf(checkpoint), run.config)
  if (E.isLeft(expected)) throwMismatch(run, dir, expected.left)
  const files = await orThrow(openSafetensors(join(run.checkpoint, trainedFile)))
  const actual = new Map([...files.entries].map(([key, { shape }]) => [key, shape]))
  const issues = shapeIssues(getOrThrow(expected), actual)
  if (issues.length > 0) await files.close()
  throwMismatch(run, dir, issues)
  return { files, changes: checkpointChanges(files, run.config), checkpoint }
}

const refuseQuantized = ({ dir, plan }: OpenCheckpoint): void => {
  if (!isQuantized(plan)) return
  const message = `${dir}: the weights are quantized, and an adapter cannot be merged into quantized weights; name the original model with --model`
  throw new InternVLError([issue('PackedBase', message, { file: dir })] satisfies Issues)
}

/**
 * Merges trained weights into their base model and writes a checkpoint folder, tensor by tensor, so that the memory in use does not
 * depend on the size of the model. `source` is a LoRA adapter in PEFT's format, the output folder of a training run (its last checkpoint
 * is used) or a checkpoint of a run. Throws an `InternVLError` for a folder that is none of these, weights of another model, or a target
 * that is not empty.
 *
 * `await merge('tuned/adapter', 'merged', { model: 'OpenGVLab/InternVL3-1B-hf' })`
 */
export const merge = async (source: string, target: string, options: MergeOptions = {}): Promise<void> => {
  const { resolveModel = (model) => orThrow(modelFolder(model, {})), engine, dtype, force = false, onProgress } = options
  const { base, adapter, run } = await findTrainedWeights(source)
  const model = await resolveModel(options.model ?? base ?? demoModel)
  await convertChanged(model, target, {
    ...{ layout: 'hf', dtype, force, sources: [source], ...(onProgress ? { onProgress } : {}) },
    withChanges: async (checkpoint, use) => {
      refuseQuantized(checkpoint)
      await selectEngine({ engine })
      const opened = adapter === undefined ? await runChanges(run!, checkpoint) : await adapterChanges(adapter, checkpoint)
      return use(opened.changes, opened.checkpoint).finally(() => opened.files.close())
    }
  })
}
