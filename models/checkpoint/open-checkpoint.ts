import { basename, join } from 'node:path'
import { sequenceS } from 'fp-ts/lib/Apply.js'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { InternVLError, type Issue, type Issues, issue, validation, whenValid } from '../../lib/error.js'
import type { Module } from '../../lib/module.js'
import { shapeIssues } from '../../lib/params.js'
import { finishCommit } from '../../lib/safetensors/commit.js'
import type { TensorFiles } from '../../lib/safetensors/read.js'
import type { Json } from '../config/config-fields.js'
import { settleFlash } from '../config/flash-config.js'
import { type InternVLConfig, type PartFamily, parseConfig, readConfigJson } from '../config/parse-config.js'
import { familyOf, modelFor, partOfPath } from '../families.js'
import { withFamilies } from '../parts/custom-parts.js'
import { dequantizedFiles } from '../quantization/foreign/dequantized-files.js'
import { withoutZeroBiases } from '../quantization/foreign/zero-biases.js'
import { foreignConfig, quantizationIssues } from '../quantization/foreign-quantization.js'
import { declaredShapes, packedTypeIssues, splitFormat, withoutQuantizationNote } from '../quantization/quantized-keys.js'
import { type Layout, type Planned, planTree, recognizeLayout } from './layout.js'
import { openWeights } from './open-weights.js'
import { pieceReader, type ReadRange } from './read-planned.js'
import { hasUnmergedLora, mergedFiles, withoutLoraFields } from './unmerged-lora.js'

export interface OpenOptions {
  /** Id of the image token, for folders whose config.json has none (OpenGVLab's layout): the tokenizer has the id. */
  readonly imageTokenId?: number | undefined
  /** Id of a token in the tokenizer, for models whose special tokens have embeddings of their own (InternVL-U). */
  readonly idOf?: ((token: string) => number | undefined) | undefined
  /** Changes the configuration before the model is built, to try a variant of the model on the same weights. */
  readonly configure?: (config: InternVLConfig) => InternVLConfig
  /** Kinds of modules that config.json may name as `custom_parts`. */
  readonly parts?: readonly PartFamily[] | undefined
}

/** Reads ranges of the stored tensors by key. */
export const rangesOf =
  (files: TensorFiles): ReadRange =>
  (source, begin, end, into) =>
    files.readBytes(files.entries.get(source)!, begin, end, into)

/** Whether two stored tensors are equal. They are compared piece by piece, so that large embeddings need no memory. */
const haveSameBytes = async (files: TensorFiles, a: Planned, b: Planned): Promise<boolean> => {
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
 * Settles whether the head is tied where the configuration ties it and the file stores a head. A head equal to the embeddings is
 * left out; a different one makes the configuration untied; a head without embeddings is used as the embeddings.
 * Source: `PreTrainedModel.tie_weights` (transformers 5.24).
 */
export const settleHead = async (
  config: InternVLConfig,
  files: TensorFiles,
  plan: readonly Planned[]
): Promise<{ readonly config: InternVLConfig; readonly plan: readonly Planned[] }> => {
  const { parts } = familyOf(config)
  const [headPath, embeddingsPath] = [`${parts.head}.weight`, `${parts.embeddings}.weight`]
  const [head, embeddings] = [headPath, embeddingsPath].map((path) => plan.find(({ key }) => splitFormat(key).path === path))
  if (!config.tieWordEmbeddings || !head) return { config, plan }
  const embeddingsKey = embeddingsPath + head.key.slice(headPath.length) // with the quantization format
  if (!embeddings) return { config, plan: plan.map((tensor) => (tensor === head ? { ...head, key: embeddingsKey } : tensor)) }
  return (await haveSameBytes(files, head, embeddings))
    ? { config, plan: plan.filter((tensor) => tensor !== head) }
    : { config: { ...config, tieWordEmbeddings: false }, plan }
}

/** The issue with the folder that it concerns. */
const inFolder =
  (dir: string) =>
  (found: Issue): Issue => ({ ...found, message: `${dir}: ${found.message}`, path: dir })

/** The left value with the folder in every issue. */
export const withFolder = <A>(dir: string, result: E.Either<Issues, A>): E.Either<Issues, A> =>
  E.mapLeft((issues: Issues): Issues => [inFolder(dir)(issues[0]), ...issues.slice(1).map(inFolder(dir))])(result)

/** Issues of the keys under a prefix, against the parameters that a module declares: missing, unexpected and mismatched. */
export const keyIssues = (module: Module, plan: readonly Planned[], prefix = ''): readonly Issue[] => {
  const byKey = new Map(plan.filter(({ key }) => key.startsWith(prefix)).map((tensor) => [tensor.key, tensor]))
  const declared = declaredShapes(module, new Set(byKey.keys()), prefix)
  const stored = new Map([...byKey].map(([key, { shape }]) => [key, shape]))
  return [...shapeIssues(declared, stored), ...packedTypeIssues([...byKey.values()])]
}

/** A checkpoint folder of which only the headers of the files are read. Close `files` after use. */
export interface OpenCheckpoint {
  readonly dir: string
  /** config.json unchanged. */
  readonly json: Json
  readonly config: InternVLConfig
  readonly layout: Layout
  readonly files: TensorFiles
  /** The tensors of the module tree as parts of the stored tensors. */
  readonly plan: readonly Planned[]
  /** All stored tensors, with a head that repeats the embeddings, which `plan` leaves out. */
  readonly stored: readonly Planned[]
}

/** The module's tensors by configuration and keys, with the head settled. */
const planCheckpoint = (dir: string, config: InternVLConfig, files: TensorFiles, hasZeroBiases: boolean) =>
  pipe(
    recognizeLayout(files.entries.keys()),
    E.chain((layout) =>
      pipe(
        planTree(layout, files.entries.values(), config.textConfig),
        E.map((stored) => ({ layout, stored }))
      )
    ),
    (result) => TE.fromEither(withFolder(dir, result)),
    TE.chainTaskK(({ layout, stored }) => async () => {
      const hasRouter = stored.some(({ key }) => partOfPath(key) === 'gating')
      const settled = settleFlash(config, hasRouter)
      const known = hasZeroBiases ? await withoutZeroBiases(files, stored, modelFor(settled)) : stored
      return { ...(await settleHead(settled, files, known)), stored: known, layout }
    })
  )

/** The issues of an exception while files were read. */
export const readingIssues = (dir: string, error: unknown): Issues => {
  if (error instanceof InternVLError) return error.issues
  return [issue('LoadFailed', `${basename(dir)}: ${error instanceof Error ? error.message : error}`, { path: dir })]
}

/** The configuration with the ids that only the tokenizer knows. A special token that the tokenizer lacks has the id -1, which no text has. */
const withTokenIds = (config: InternVLConfig, { imageTokenId, idOf }: OpenOptions): InternVLConfig => {
  const { specialTokens } = config
  const ids = idOf && specialTokens?.tokens.map((token) => idOf(token) ?? -1)
  return {
    ...config,
    ...(imageTokenId === undefined ? {} : { imageTokenId }),
    ...(ids && specialTokens ? { specialTokens: { ...specialTokens, ids } } : {})
  }
}

/** config.json, unchanged and parsed. Weights that other software quantized are refused before any field is checked. */
const readSource = (dir: string) =>
  pipe(
    readConfigJson(dir),
    TE.chainEitherK((json) => whenValid(quantizationIssues(json, dir), () => json)),
    TE.chainEitherK((json) =>
      pipe(
        parseConfig(json, join(dir, 'config.json')),
        E.map((config) => ({ json, config }))
      )
    )
  )

/** The result of a task; where the task fails, the files are closed. */
const closingOnFailure = async <A>(
  dir: string,
  files: TensorFiles,
  task: TE.TaskEither<Issues, A>
): Promise<E.Either<Issues, A>> => {
  const result = await task().catch((error): E.Either<Issues, A> => E.left(readingIssues(dir, error)))
  if (E.isLeft(result)) await files.close()
  return result
}

/**
 * Opens a checkpoint folder in any layout, without its weights. Errors of config.json and of the weight files are reported
 * together; `keyIssues` checks whether the tensors are those of the model.
 */
export const openCheckpoint =
  (dir: string, options: OpenOptions = {}): TE.TaskEither<Issues, OpenCheckpoint> =>
  async () => {
    const commit = await finishCommit(dir)()
    if (E.isLeft(commit)) return commit
    const [source, opened] = [await readSource(dir)(), await openWeights(dir)()]
    if (E.isLeft(opened)) return E.chain((): E.Either<Issues, never> => opened)(sequenceS(validation)({ source, opened })) // the errors of both
    const foreign = E.isRight(source) ? foreignConfig(source.right.json) : undefined
    const isUnmerged = E.isRight(source) && hasUnmergedLora(source.right.json)
    const dequantized = foreign ? await dequantizedFiles(opened.right, foreign) : opened.right
    const files = isUnmerged ? mergedFiles(dequantized) : dequantized
    const toPlain = (json: Json): Json => withoutLoraFields(foreign ? withoutQuantizationNote(json) : json)
    const plan = ({ json, config: read }: { readonly json: Json; readonly config: InternVLConfig }) => {
      const known = withTokenIds(read, options)
      return pipe(
        TE.fromEither(withFamilies(options.configure?.(known) ?? known, options.parts ?? [], join(dir, 'config.json'))),
        TE.chain((config) => planCheckpoint(dir, config, files, foreign?.quant_method === 'gptq')),
        TE.map((planned): OpenCheckpoint => ({ dir, json: toPlain(json), files, ...planned }))
      )
    }
    return closingOnFailure(dir, files, pipe(TE.fromEither(source), TE.chain(plan)))
  }
