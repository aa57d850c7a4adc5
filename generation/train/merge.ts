import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { type EngineName, selectEngine } from '../../lib/engines/index.js'
import { getOrThrow, InternVLError, type Issue, type Issues, issue, orThrow } from '../../lib/error.js'
import { isThere } from '../../lib/is-there.js'
import { compareShapes, declarations } from '../../lib/params.js'
import { openSafetensors, type TensorFiles } from '../../lib/safetensors/read.js'
import type { OpenCheckpoint } from '../../models/checkpoint/open-checkpoint.js'
import type { WeightType } from '../../models/checkpoint/save-model.js'
import { both, type Change, type Changes, raisedBy, replacedBy } from '../../models/checkpoint/weight-changes.js'
import type { Json } from '../../models/config/config-fields.js'
import { internVL } from '../../models/internvl/internvl.js'
import { adapterBase, adapterConfigFile, openAdapter, scalingOf } from '../../models/lora/adapter.js'
import { plainPath, type Shapes } from '../../models/lora/lora.js'
import { isPacked } from '../../models/quantization/quantized-keys.js'
import { demoModel } from '../checkpoint/load.js'
import { convertChanged } from '../checkpoint/save.js'
import { modelFolder } from '../hub/index.js'
import { checkpointNote, lastCheckpoint, trainedFile } from './train-checkpoint.js'
import { type TrainConfig, trainConfig } from './train-config.js'
import { loraScaling, trainedShapes } from './trainable.js'

/** A checkpoint of a run. */
interface Run {
  readonly checkpoint: string
  readonly config: TrainConfig
}

/** What a folder holds that was trained: an adapter, or a run's checkpoint; and the model that it was made for. */
interface Tuned {
  readonly base: string | undefined
  readonly adapter?: string
  readonly run?: Run
}

export interface MergeOptions {
  /** The model that was trained; the one that adapter or checkpoint name unless given. */
  readonly model?: string | undefined
  /** Type of the weights that are written; the model's own unless given. */
  readonly dtype?: WeightType | undefined
  /** Writes though the folder is not empty. */
  readonly force?: boolean
  readonly engine?: EngineName | undefined
  /** Brings a model to a folder: the hub's without a view on its progress unless given. */
  readonly folderOf?: (model: string) => Promise<string>
  /** Told after each piece: bytes read so far, and of all. */
  readonly onProgress?: (done: number, total: number) => void
}

/** The checkpoint that a folder is, or the last one of the run whose output it is. */
const checkpointIn = async (source: string): Promise<string | undefined> =>
  (await isThere(join(source, 'state.json')))
    ? source
    : ((await lastCheckpoint(join(source, 'checkpoints'))) ?? (await lastCheckpoint(source)))

const tunedIn = async (source: string): Promise<Tuned> => {
  if (await isThere(join(source, adapterConfigFile))) return { adapter: source, base: await orThrow(adapterBase(source)) }
  const checkpoint = await checkpointIn(source)
  if (checkpoint === undefined) {
    const what = (await isThere(source))
      ? `it holds neither ${adapterConfigFile} nor checkpoints of a training run`
      : 'no such folder'
    const message = `${source}: ${what}; give a PEFT adapter, the output of \`internvl train\` or one of its checkpoints`
    throw new InternVLError([issue('NothingToMerge', message, { file: source })])
  }
  const { settings } = await orThrow(checkpointNote(checkpoint))
  const config = getOrThrow(trainConfig((settings ?? {}) as Json, join(checkpoint, 'state.json')))
  return { base: config.model ?? undefined, run: { checkpoint, config } }
}

/** Of another model neither the patterns nor the tensors of a run fit: then a first line says so. */
const misfit = ({ checkpoint, config }: Run, dir: string, issues: readonly Issue[]): void => {
  if (issues.length === 0) return
  const message = `${checkpoint}: it does not fit ${dir}; it was trained on ${config.model}`
  throw new InternVLError([issue('CheckpointMisfit', message, { checkpoint, model: dir }), ...issues])
}

/** The change of each parameter that an adapter has something for. */
const adapterChanges = async (adapter: string, shapes: Shapes) => {
  const { files, pairs, saved, config } = await orThrow(openAdapter(adapter, shapes))
  const changes = new Map<string, Change>([...saved].map(([path, entry]) => [path, replacedBy(files, entry)]))
  for (const [module, { lora_A, lora_B }] of pairs)
    changes.set(`${module}.weight`, raisedBy(files, lora_A!, lora_B!, scalingOf(config, module)))
  return { files, changes }
}

const runChangesOf = (files: TensorFiles, config: TrainConfig): Changes => {
  const changes = new Map<string, Change>()
  for (const [path, entry] of files.entries) {
    const module = /^(.*)\.weight\.lora_A$/.exec(path)?.[1]
    const plain = module === undefined ? plainPath(path) : `${module}.weight`
    const lora_B = module === undefined ? undefined : files.entries.get(`${plain}.lora_B`)
    if (path.endsWith('.lora_B')) continue
    const change = lora_B ? raisedBy(files, entry, lora_B, loraScaling(config)) : replacedBy(files, entry)
    const other = changes.get(plain)
    const [first, second] = lora_B ? [other, change] : [change, other] // a trained base, then what is added to it
    changes.set(plain, first && second ? both(first, second) : change)
  }
  return changes
}

/** The same of a run's checkpoint. */
const runChanges = async (run: Run, { dir }: OpenCheckpoint, shapes: Shapes) => {
  const expected = trainedShapes(shapes, run.config)
  if (E.isLeft(expected)) misfit(run, dir, expected.left)
  const files = await orThrow(openSafetensors(join(run.checkpoint, trainedFile)))
  const actual = new Map([...files.entries].map(([key, { shape }]) => [key, shape]))
  const issues = compareShapes(getOrThrow(expected), actual)
  if (issues.length > 0) await files.close()
  misfit(run, dir, issues)
  return { files, changes: runChangesOf(files, run.config) }
}

const checkPacked = ({ dir, plan }: OpenCheckpoint): void => {
  if (!isPacked(plan)) return
  const message = `${dir}: its weights are packed, so nothing can be merged into them; give --model the folder that they were made of`
  throw new InternVLError([issue('PackedBase', message, { file: dir })] satisfies Issues)
}

/**
 * Merges what was trained into the weights of its model, and writes them as a folder as published, piece by piece, so that memory
 * does not depend on the model's size. `source` is a LoRA adapter in PEFT's format, the output of a training run (its last checkpoint
 * is taken, finished or not) or one of its checkpoints. Throws an `InternVLError`: a folder that is none of these, an adapter or a run
 * of another model, a target that is not empty.
 *
 * `await merge('tuned/adapter', 'merged', { model: 'OpenGVLab/InternVL3-1B-hf' })`
 */
export const merge = async (source: string, target: string, options: MergeOptions = {}): Promise<void> => {
  const { folderOf = (model) => orThrow(modelFolder(model, {})), engine, dtype, force = false, onProgress } = options
  const { base, adapter, run } = await tunedIn(source)
  const model = await folderOf(options.model ?? base ?? demoModel)
  await convertChanged(model, target, {
    ...{ layout: 'hf', dtype, force, sources: [source], ...(onProgress ? { onProgress } : {}) },
    withChanges: async (checkpoint, use) => {
      checkPacked(checkpoint)
      const shapes = new Map(declarations(internVL(checkpoint.config)).map(([path, { shape }]) => [path, shape]))
      const opened = adapter === undefined ? await runChanges(run!, checkpoint, shapes) : await adapterChanges(adapter, shapes)
      await selectEngine({ engine })
      return use(opened.changes).finally(() => opened.files.close())
    }
  })
}
