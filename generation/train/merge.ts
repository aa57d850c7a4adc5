import { access } from 'node:fs/promises'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { type Fault, type Faults, fault, getOrThrow, InternVLError, orThrow } from '../../lib/fault.js'
import { disposeBeside, disposeParams, namedParameters } from '../../lib/params.js'
import { adapterBase, adapterConfigFile } from '../../models/adapter.js'
import type { Json } from '../../models/config-fields.js'
import { type WeightType, weightTypes } from '../../models/save.js'
import { type InternVLCheckpoint, load } from '../load.js'
import { checkTarget, save } from '../save.js'
import { checkpointNote, lastCheckpoint, loadCheckpoint } from './checkpoint.js'
import { type TrainConfig, trainConfig } from './config.js'
import { wholeModel } from './fine-tune.js'
import { type Trainable, trainable } from './trainable.js'

/** What a folder holds that was trained: an adapter, or a run's checkpoint; and the model that it was made for. */
interface Tuned {
  readonly base: string | undefined
  readonly adapter?: string
  readonly run?: { readonly checkpoint: string; readonly config: TrainConfig }
}

export interface MergeOptions {
  /** The model that was trained; the one that adapter or checkpoint name unless given. */
  readonly model?: string | undefined
  /** Type of the weights that are written; the model's own unless given. */
  readonly dtype?: WeightType | undefined
  /** Writes though the folder is not empty. */
  readonly force?: boolean
  /** Opens the model, with the adapter where there is one: `load` unless given. */
  readonly open?: (model: string | undefined, adapter: string | undefined) => Promise<InternVLCheckpoint>
}

const isThere = (path: string): Promise<boolean> => access(path).then(() => true, () => false) // biome-ignore format: one line

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
    throw new InternVLError([fault('NothingToMerge', message, { file: source })])
  }
  const { settings } = await orThrow(checkpointNote(checkpoint))
  const config = getOrThrow(trainConfig((settings ?? {}) as Json, join(checkpoint, 'state.json')))
  return { base: config.model ?? undefined, run: { checkpoint, config } }
}

/** Of another model neither the patterns nor the tensors of a run fit: then a first line says so. */
const fitting = <A>({ checkpoint, config }: NonNullable<Tuned['run']>, dir: string, result: E.Either<Faults, A>): A =>
  getOrThrow(
    E.mapLeft((faults: Faults): Faults => {
      const message = `${checkpoint}: it does not fit ${dir}; it was trained on ${config.model}`
      return [fault('CheckpointMisfit', message, { checkpoint, model: dir }), ...(faults as readonly Fault[])]
    })(result)
  )

/** The whole model of a run's checkpoint, handed to `use`. */
const withRun = async (internvl: InternVLCheckpoint, run: NonNullable<Tuned['run']>, use: (params: unknown) => Promise<void>) => {
  const parts = fitting<Trainable>(run, internvl.dir, trainable(internvl.params, run.config))
  try {
    const { state } = fitting(run, internvl.dir, await loadCheckpoint(run.checkpoint, parts.trained)())
    disposeParams([state.optimizer.first, state.optimizer.second])
    const params = wholeModel(state.params, parts.frozen)
    await use(params).finally(() => disposeBeside(internvl.params, params, state.params))
  } finally {
    disposeBeside(internvl.params, parts.trained, parts.frozen)
  }
}

const checkPacked = ({ dir, params }: InternVLCheckpoint): void => {
  if (!namedParameters(params).some(([path]) => /\.weight\.(base\.)?(bf16|int8|int4)$/.test(path))) return
  const message = `${dir}: its weights are packed, so nothing can be merged into them; give --model the folder that they were made of`
  throw new InternVLError([fault('PackedBase', message, { file: dir })])
}

/**
 * Merges what was trained into the weights of its model, and writes them as a folder as published. `source` is a LoRA adapter in
 * PEFT's format, the output of a training run (its last checkpoint is taken, finished or not) or one of its checkpoints. Throws an
 * `InternVLError`: a folder that is none of these, an adapter or a run of another model, a target that is not empty.
 *
 * `await merge('tuned/adapter', 'merged', { model: 'OpenGVLab/InternVL3-1B-hf' })`
 */
export const merge = async (source: string, target: string, options: MergeOptions = {}): Promise<void> => {
  const { open = (model, adapter) => load(model, { adapter }), force = false } = options
  const { base, adapter, run } = await tunedIn(source)
  const model = options.model ?? base
  await checkTarget([source, ...(model === undefined ? [] : [model])], target, force)
  const internvl = await open(model, adapter)
  try {
    checkPacked(internvl)
    const { config, dir } = internvl
    const own = config.dtype && config.dtype in weightTypes ? (config.dtype as WeightType) : 'float32'
    const write = (params: unknown) => save(target, { config, params, dtype: options.dtype ?? own, processorFilesFrom: dir })
    await (run ? withRun(internvl, run, write) : write(internvl.params))
  } finally {
    internvl.dispose()
  }
}
