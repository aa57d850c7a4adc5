import { join } from 'node:path'
import { pipe } from 'fp-ts/lib/function.js'
import * as RA from 'fp-ts/lib/ReadonlyArray.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { InternVLError, type Issue, type Issues, issue, whenValid } from '../../lib/error.js'
import { readSmallText } from '../../lib/files.js'
import type { Module } from '../../lib/module.js'
import { declarations, disposeParams } from '../../lib/params.js'
import { openSafetensors, type TensorFiles } from '../../lib/safetensors/read.js'
import { readAll, type StoredMatrix } from '../../lib/safetensors/stored-matrix.js'
import { tf } from '../../lib/tf.js'
import type { Heads } from '../checkpoint/layout.js'
import { families } from '../families.js'
import { type AdapterConfig, adapterConfigFile, adapterWeightsFile, parseAdapterConfig } from './adapter-config.js'
import { replaceLeaves } from './adapter-modules.js'
import { type AdapterContents, adapterContents, untiesHead } from './adapter-tensors.js'
import { attachLora, type LoraParts } from './lora.js'
import { type Shapes, shapesWithoutLora } from './lora-targets.js'

export { adapterConfigFile, adapterWeightsFile } from './adapter-config.js'
export { type SaveAdapterOptions, saveAdapter } from './save-adapter.js'

const readConfig = (dir: string): TE.TaskEither<Issues, AdapterConfig> => {
  const path = join(dir, adapterConfigFile)
  const unreadable = (error: unknown): Issues => {
    const { code, message } = error as NodeJS.ErrnoException
    const why = code === 'ENOENT' ? 'no such file; give the folder of a PEFT adapter' : `it cannot be read (${message})`
    return [issue('FileMissing', `${path}: ${why}`, { file: path })]
  }
  return pipe(
    TE.tryCatch(() => readSmallText(path), unreadable),
    TE.chainEitherK((source) => parseAdapterConfig(path, source))
  )
}

/** The folder or name of the model that an adapter was made for, if its configuration states one. Errors: as `loadAdapter`. */
export const adapterBase = (dir: string): TE.TaskEither<Issues, string | undefined> =>
  pipe(
    readConfig(dir),
    TE.map(({ base }) => base)
  )

/** The mismatches after a summary that names the base model of the adapter; empty where there are none. */
const withSummary = (dir: string, { base }: AdapterConfig, issues: readonly Issue[]): readonly Issue[] => {
  const message = `${dir}: this adapter is not for this model${base ? `; it was made for ${base}` : ''}`
  return RA.isEmpty(issues) ? [] : [issue('AdapterMismatch', message, { dir, base }), ...issues]
}

/** An adapter whose weights fit a model; they are not read yet. Close `files` after use. */
export interface OpenAdapter extends AdapterContents {
  readonly config: AdapterConfig
  readonly files: TensorFiles
}

/** The issues that a check returns, or those of the `InternVLError` that the check throws. */
const issuesOf = (check: () => readonly Issue[]): readonly Issue[] => {
  try {
    return check()
  } catch (error) {
    if (error instanceof InternVLError) return error.issues
    throw error
  }
}

/** Checks the tensors of an adapter against the shapes of a model, and closes the files where they do not fit. */
const checkFit =
  (dir: string, shapes: Shapes, config: AdapterConfig, files: TensorFiles, heads?: Heads): TE.TaskEither<Issues, OpenAdapter> =>
  async () => {
    let contents: (() => AdapterContents) | undefined
    const issues = issuesOf(() => {
      const checked = adapterContents(join(dir, adapterWeightsFile), config, files, shapes, heads)
      contents = checked.contents
      return checked.issues
    })
    if (issues.length > 0) await files.close()
    return whenValid(withSummary(dir, config, issues), () => ({ ...contents!(), config, files }))
  }

const openFiles = (dir: string): TE.TaskEither<Issues, { readonly config: AdapterConfig; readonly files: TensorFiles }> =>
  pipe(
    readConfig(dir),
    TE.bindTo('config'),
    TE.bind('files', () => openSafetensors(join(dir, adapterWeightsFile)))
  )

/**
 * Opens a PEFT adapter folder for a model whose parameters have these shapes. The adapter may name modules as any layout does; `heads` are
 * needed for a layout that fuses q, k and v by key-value heads. Errors: a missing or malformed file, an unsupported kind of adapter; every
 * weight that is unknown to the model, missing or of another shape.
 */
export const openAdapter = (dir: string, shapes: Shapes, heads?: Heads): TE.TaskEither<Issues, OpenAdapter> =>
  pipe(
    openFiles(dir),
    TE.chain(({ config, files }) => checkFit(dir, shapes, config, files, heads))
  )

/**
 * Whether an adapter gives embeddings and head of a tied model different weights, as PEFT does unless `ensure_weight_tying` is set: the
 * model then needs a head of its own (`untied`). Errors: a missing or malformed file.
 */
export const adapterUntiesHead = (dir: string): TE.TaskEither<Issues, boolean> =>
  TE.bracket(
    openFiles(dir),
    ({ config, files }) => TE.right(untiesHead(config, files.entries.keys())),
    ({ files }) => TE.rightTask(() => files.close())
  )

/** Reads the tensors of an adapter in float32. A failure disposes those that were read. */
const readAdapter = async ({ updates, parameters, config }: OpenAdapter, shapes: Shapes) => {
  const parts = new Map<string, LoraParts>()
  const replaced = new Map<string, tf.Tensor>()
  const created: tf.Tensor[] = []
  const read = async (matrix: StoredMatrix, shape: readonly number[]): Promise<tf.Tensor> => {
    const tensor = tf.tensor(await readAll(matrix), [...shape], 'float32')
    created.push(tensor)
    return tensor
  }
  try {
    for (const [path, matrix] of parameters) replaced.set(path, await read(matrix, shapes.get(path)!))
    for (const [module, { A, B, magnitude, scaling, experts }] of updates) {
      const shapeOf = ({ shape: [rows, columns] }: StoredMatrix) =>
        experts > 1 ? [experts, rows / experts, columns] : [rows, columns]
      const [lora_A, lora_B] = [await read(A, shapeOf(A)), await read(B, shapeOf(B))]
      const vector = magnitude ? { lora_magnitude_vector: await read(magnitude, [magnitude.shape[0]]) } : {}
      parts.set(module, { lora_A, lora_B, ...vector, scaling, dropout: config.dropout })
    }
    return { parts, replaced }
  } catch (error) {
    disposeParams(created)
    throw error
  }
}

/** An error for an adapter that needs a head of its own, for a tied tree. */
const tiedIssues = (dir: string, shapes: Shapes, needsHead: boolean): readonly Issue[] => {
  const { head } = families[0].parts
  const message = `${dir}: this adapter gives the embeddings and the head different weights, which are one in this model; load(model, { adapter }) gives the model a head of its own, as does untied()`
  return needsHead && !shapes.has(`${head}.weight`) ? [issue('TiedHead', message, { dir })] : []
}

/**
 * The tree with the LoRA weights of a PEFT folder: `weight` becomes `{ base, lora_A, lora_B, scaling }`, and saved modules replace
 * those of the tree. Other tensors are shared; the caller disposes the new ones (`loraLeaves`). A tree with quantized weights needs
 * `module`, which declares their shapes; `heads`, such as `config.textConfig`, as for `openAdapter`. Errors: as `openAdapter`; `TiedHead`
 * for an adapter that gives embeddings and head of a tied model different weights.
 */
export const loadAdapter = <P>(dir: string, params: P, module?: Module<P>, heads?: Heads): TE.TaskEither<Issues, P> => {
  const declared = new Map(module ? declarations(module).map(([path, { shape }]) => [path, shape]) : [])
  const shapes = shapesWithoutLora(params, declared)
  return TE.bracket(
    pipe(
      adapterUntiesHead(dir),
      TE.chainEitherK((needsHead) => whenValid(tiedIssues(dir, shapes, needsHead), () => undefined)),
      TE.chain(() => openAdapter(dir, shapes, heads))
    ),
    (adapter) =>
      TE.rightTask(async () => {
        const { parts, replaced } = await readAdapter(adapter, shapes)
        return attachLora(replaceLeaves(params, replaced), parts)
      }),
    ({ files }) => TE.rightTask(() => files.close())
  )
}
