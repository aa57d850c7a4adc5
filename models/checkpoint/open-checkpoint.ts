import { basename, join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { InternVLError, type Issue, type Issues, issue } from '../../lib/error.js'
import type { Module } from '../../lib/module.js'
import { compareShapes } from '../../lib/params.js'
import { openCheckpointTensors, type TensorFiles } from '../../lib/safetensors/read.js'
import type { Json } from '../config/config-fields.js'
import { type InternVLConfig, parseConfig, readConfigJson } from '../config/parse-config.js'
import { quantizationIssues } from '../quantization/foreign-quantization.js'
import { declaredShapes, splitForm, wordIssues } from '../quantization/quantized-keys.js'
import { type Layout, type Planned, planTree, recogniseLayout } from './layout.js'
import { pieceReader, type ReadRange } from './read-planned.js'

/** What is known or wanted of a checkpoint beside its config.json. */
export interface OpenOptions {
  /** Id of `<IMG_CONTEXT>`, for folders whose config.json does not say (the original layout): the tokenizer knows it. */
  readonly imageTokenId?: number | undefined
  /** Changes the configuration before the model is built, to try a variant of it on the same weights. */
  readonly configure?: (config: InternVLConfig) => InternVLConfig
}

const head = 'lm_head.weight'
const table = 'model.language_model.embed_tokens.weight'

/** Reads ranges of the stored tensors by key. */
export const rangesOf =
  (files: TensorFiles): ReadRange =>
  (source, begin, end, into) =>
    files.readBytes(files.entries.get(source)!, begin, end, into)

/** Compares piece by piece, so that two tables as large as a head need no memory. */
const sameBytes = async (files: TensorFiles, a: Planned, b: Planned): Promise<boolean> => {
  if (a.dtype !== b.dtype || `${a.shape}` !== `${b.shape}`) return false
  const others = pieceReader(rangesOf(files))(b)
  for await (const piece of pieceReader(rangesOf(files))(a)) {
    const other = await others.next()
    if (other.done || Buffer.compare(piece, other.value) !== 0) {
      await others.return(undefined)
      return false
    }
  }
  return true
}

/**
 * A configuration may tie the head to the embeddings while the file stores both. Equal, the copy is not needed; different,
 * the file is right and the head stands on its own. A head alone is the embeddings too.
 * Source: `PreTrainedModel.tie_weights` (transformers 5.23).
 */
const settleHead = async (config: InternVLConfig, files: TensorFiles, plan: readonly Planned[]) => {
  const [own, tied] = [head, table].map((path) => plan.find(({ key }) => splitForm(key).path === path))
  if (!config.tieWordEmbeddings || !own) return { config, plan }
  const asTable = table + own.key.slice(head.length)
  if (!tied) return { config, plan: plan.map((tensor) => (tensor === own ? { ...own, key: asTable } : tensor)) }
  return (await sameBytes(files, own, tied))
    ? { config, plan: plan.filter((tensor) => tensor !== own) }
    : { config: { ...config, tieWordEmbeddings: false }, plan }
}

/** Errors of keys, with the folder that they are of. */
export const inFolder = (dir: string, issues: readonly Issue[]): Issues =>
  issues.map((f) => ({ ...f, message: `${dir}: ${f.message}`, path: dir })) as unknown as Issues

/** What a module declares under a prefix, against what a plan has there: missing, unexpected and mismatched keys. */
export const keyIssues = (module: Module, plan: readonly Planned[], prefix = ''): readonly Issue[] => {
  const own = new Map(plan.filter(({ key }) => key.startsWith(prefix)).map((tensor) => [tensor.key, tensor]))
  const declared = declaredShapes(module, new Set(own.keys()), prefix)
  const stored = new Map([...own].map(([key, { shape }]) => [key, shape]))
  return [...compareShapes(declared, stored), ...wordIssues([...own.values()])]
}

/** A checkpoint folder of which only the heads of the files are read. Close `files` when done. */
export interface OpenCheckpoint {
  readonly dir: string
  /** config.json as it stands there. */
  readonly json: Json
  readonly config: InternVLConfig
  readonly layout: Layout
  readonly files: TensorFiles
  /** How the tensors of the module tree are made of the stored ones. */
  readonly plan: readonly Planned[]
  /** The same of all that is stored, with a head that only repeats the embeddings. */
  readonly stored: readonly Planned[]
}

const issuesOf = (result: E.Either<Issues, unknown>): readonly Issue[] => (E.isLeft(result) ? result.left : [])

/** The module's tensors as a configuration and the keys say; the head as `settleHead` finds it. */
const planOf = async (dir: string, config: InternVLConfig, files: TensorFiles) => {
  const layout = recogniseLayout(files.entries.keys())
  if (E.isLeft(layout)) return E.left(inFolder(dir, layout.left))
  const planned = planTree(layout.right, files.entries.values(), config.textConfig)
  if (E.isLeft(planned)) return E.left(inFolder(dir, planned.left))
  return E.right({ ...(await settleHead(config, files, planned.right)), stored: planned.right, layout: layout.right })
}

/** What failed while files were read, as errors. */
export const readingIssues = (dir: string, error: unknown): Issues => {
  if (error instanceof InternVLError) return error.issues
  return [issue('LoadFailed', `${basename(dir)}: ${error instanceof Error ? error.message : error}`, { path: dir })]
}

/**
 * Opens a checkpoint folder without its weights, in any layout. Errors of config.json and of the files of weights are reported
 * together; whether the tensors are those of the model `keyFaults` tells.
 */
export const openCheckpoint =
  (dir: string, options: OpenOptions = {}): TaskEither<Issues, OpenCheckpoint> =>
  async () => {
    const json = await readConfigJson(dir)()
    const foreign = E.isRight(json) ? quantizationIssues(json.right, dir) : []
    if (foreign.length > 0) return E.left(foreign as unknown as Issues)
    const opened = await openCheckpointTensors(dir)()
    const read = E.chain((found: Json) => parseConfig(found, join(dir, 'config.json')))(json)
    if (E.isLeft(json) || E.isLeft(read) || E.isLeft(opened)) {
      if (E.isRight(opened)) await opened.right.close()
      return E.left([...issuesOf(read), ...issuesOf(opened)] as unknown as Issues)
    }
    const files = opened.right
    try {
      const known = options.imageTokenId === undefined ? read.right : { ...read.right, imageTokenId: options.imageTokenId }
      const planned = await planOf(dir, options.configure?.(known) ?? known, files)
      if (E.isRight(planned)) return E.right({ dir, json: json.right, files, ...planned.right })
      await files.close()
      return planned
    } catch (error) {
      await files.close()
      return E.left(readingIssues(dir, error))
    }
  }
