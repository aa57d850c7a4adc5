import { basename } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { type Fault, type Faults, fault, InternVLError } from '../lib/fault.js'
import { buildParams, compareShapes, declarations } from '../lib/params.js'
import { openCheckpointTensors, type TensorFiles } from '../lib/safetensors.js'
import type { tf } from '../lib/tf.js'
import { uploadPieces } from '../lib/upload.js'
import { type Layout, type Planned, planTree, recogniseLayout } from './checkpoint.js'
import { pieceReader, plannedBytes, type ReadRange, readPlanned } from './checkpoint-read.js'
import { type InternVLConfig, readConfig } from './config.js'
import { type InternVL, internVL } from './internvl.js'

/** The module of a configuration. */
export type InternVLModule = ReturnType<typeof internVL>
export type InternVLParams = Parameters<InternVLModule['apply']>[0]

/** A model from a folder. `dispose` frees its parameters. */
export interface LoadedModel {
  readonly config: InternVLConfig
  /** Which names and fusions the folder's files use. */
  readonly layout: Layout
  readonly module: InternVLModule
  readonly params: InternVLParams
  readonly model: InternVL
  readonly dispose: () => void
}

export interface LoadModelOptions {
  /** Id of `<IMG_CONTEXT>`, for folders whose config.json does not say (the original layout): the tokenizer knows it. */
  readonly imageTokenId?: number | undefined
  /** Changes the configuration before the model is built, to try a variant of it on the same weights. */
  readonly configure?: (config: InternVLConfig) => InternVLConfig
  /** Told after each tensor: bytes read so far, and of all. */
  readonly onProgress?: (done: number, total: number) => void
}

const head = 'lm_head.weight'
const table = 'model.language_model.embed_tokens.weight'

/** Reads ranges of the stored tensors by key. */
export const rangesOf =
  (files: TensorFiles): ReadRange =>
  (source, begin, end, into) =>
    files.readBytes(files.entries.get(source)!, begin, end, into)

const sameBytes = async (files: TensorFiles, a: Planned, b: Planned): Promise<boolean> => {
  const [x, y] = [await readPlanned(a, rangesOf(files)), await readPlanned(b, rangesOf(files))]
  return a.dtype === b.dtype && Buffer.from(x.buffer, x.byteOffset, x.byteLength).equals(y)
}

/**
 * A configuration may tie the head to the embeddings while the file stores both. Equal, the copy is not needed; different,
 * the file is right and the head stands on its own. A head alone is the embeddings too.
 * Source: `PreTrainedModel.tie_weights` (transformers 5.23).
 */
export const settleHead = async (config: InternVLConfig, files: TensorFiles, plan: readonly Planned[]) => {
  const [own, tied] = [plan.find(({ key }) => key === head), plan.find(({ key }) => key === table)]
  if (!config.tieWordEmbeddings || !own) return { config, plan }
  if (!tied) return { config, plan: plan.map((tensor) => (tensor === own ? { ...own, key: table } : tensor)) }
  return (await sameBytes(files, own, tied))
    ? { config, plan: plan.filter((tensor) => tensor !== own) }
    : { config: { ...config, tieWordEmbeddings: false }, plan }
}

/** The largest first: what is in memory only while a tensor is made then stands beside few others, not all. */
const largestFirst = (plan: readonly Planned[]): readonly Planned[] => [...plan].sort((a, b) => plannedBytes(b) - plannedBytes(a))

/** The planned tensors in float32, by key. */
export const readTensors = async (files: TensorFiles, plan: readonly Planned[], onProgress?: LoadModelOptions['onProgress']) => {
  const total = plan.reduce((n, tensor) => n + plannedBytes(tensor), 0)
  const tensors = new Map<string, tf.Tensor>()
  const pieces = pieceReader(rangesOf(files))
  let done = 0
  try {
    for (const planned of largestFirst(plan)) {
      tensors.set(planned.key, await uploadPieces(pieces(planned), planned.dtype, planned.shape))
      done += plannedBytes(planned)
      onProgress?.(done, total)
    }
    return tensors
  } catch (error) {
    for (const tensor of tensors.values()) tensor.dispose()
    throw error
  }
}

const inFolder = (dir: string, faults: readonly Fault[]): Faults =>
  faults.map((f) => ({ ...f, message: `${dir}: ${f.message}`, path: dir })) as unknown as Faults

const shapesOf = (entries: ReadonlyArray<readonly [string, { readonly shape: readonly number[] }]>) =>
  new Map(entries.map(([key, { shape }]) => [key, shape]))

const buildModel = async (
  dir: string,
  given: InternVLConfig,
  files: TensorFiles,
  options: LoadModelOptions
): Promise<E.Either<Faults, LoadedModel>> => {
  const layout = recogniseLayout(files.entries.keys())
  if (E.isLeft(layout)) return E.left(inFolder(dir, layout.left))
  const planned = planTree(layout.right, files.entries.values(), given.textConfig)
  if (E.isLeft(planned)) return E.left(inFolder(dir, planned.left))
  const { config, plan } = await settleHead(given, files, planned.right)
  const module = internVL(config)
  const problems = compareShapes(shapesOf(declarations(module)), shapesOf(plan.map((tensor) => [tensor.key, tensor])))
  if (problems.length > 0) return E.left(inFolder(dir, problems))
  const tensors = await readTensors(files, plan, options.onProgress)
  const params = buildParams(module, (path) => tensors.get(path)!)
  const dispose = () => tensors.forEach((tensor) => void tensor.dispose())
  return E.right({ config, layout: layout.right, module, params, model: module.apply(params), dispose })
}

/**
 * Opens a checkpoint folder in any layout: config.json, then its safetensors, one tensor at a time, in float32.
 * All that is missing, unexpected or of another shape is reported together. Call `selectEngine` first.
 */
export const loadModel =
  (dir: string, options: LoadModelOptions = {}): TaskEither<Faults, LoadedModel> =>
  async () => {
    const read = await readConfig(dir)()
    if (E.isLeft(read)) return read
    const known = options.imageTokenId === undefined ? read.right : { ...read.right, imageTokenId: options.imageTokenId }
    const config = options.configure?.(known) ?? known
    const opened = await openCheckpointTensors(dir)()
    if (E.isLeft(opened)) return opened
    try {
      return await buildModel(dir, config, opened.right, options)
    } catch (error) {
      if (error instanceof InternVLError) return E.left(error.faults)
      return E.left([fault('LoadFailed', `${basename(dir)}: ${error instanceof Error ? error.message : error}`, { path: dir })])
    } finally {
      await opened.right.close()
    }
  }
