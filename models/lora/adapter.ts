import { join } from 'node:path'
import { pipe } from 'fp-ts/lib/function.js'
import * as RA from 'fp-ts/lib/ReadonlyArray.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { fromFloat32 } from '../../lib/dtype.js'
import { InternVLError, type Issue, type Issues, invalid, issue, whenValid } from '../../lib/error.js'
import { readSmallText } from '../../lib/files.js'
import type { Module } from '../../lib/module.js'
import { declarations, disposeParams, namedParameters } from '../../lib/params.js'
import { openSafetensors, type TensorEntry, type TensorFiles } from '../../lib/safetensors/read.js'
import { type SidecarFiles, type TensorSource, writeSafetensorsFolder } from '../../lib/safetensors/write.js'
import { tf } from '../../lib/tf.js'
import { isWithin } from '../families.js'
import { type AdapterConfig, adapterConfigJson, alphaOf, parseAdapterConfig, rankOf, targetedModules } from './adapter-config.js'
import { modulesToSave, replaceLeaves, savedModuleMismatches } from './adapter-modules.js'
import { attachLora, type LoraParts, linearLayers, loraWeights, type Shapes, shapesWithoutLora } from './lora.js'

/** Names of PEFT's files. */
export const adapterConfigFile = 'adapter_config.json'
export const adapterWeightsFile = 'adapter_model.safetensors'

/** PEFT's keys: a prefix before the path of a module, and the name of the part after it. */
const keyOf = (path: string): string => `base_model.model.${path}`
const loraKeyOf = (module: string, part: 'lora_A' | 'lora_B'): string => keyOf(`${module}.${part}.weight`)
const savedPattern = /^base_model\.model\.(.+?)(?:\.modules_to_save(?:\.default)?)?\.([^.]+)$/
const keyPattern = /^base_model\.model\.(.+)\.(lora_[AB])(?:\.default)?\.weight$/

const sourceOf = (key: string, tensor: tf.Tensor): TensorSource => ({
  key,
  dtype: 'F32',
  shape: tensor.shape,
  bytes: async function* () {
    yield fromFloat32((await tensor.data()) as Float32Array, 'F32')
  }
})

export interface SaveAdapterOptions {
  /** Folder or name of the model that the adapter is for. */
  readonly base?: string
  /** Paths of parameters that were trained beside LoRA; their modules are saved whole. */
  readonly beside?: readonly string[]
  readonly files?: SidecarFiles
}

/**
 * Writes the LoRA weights of a tree in PEFT's format, with the modules that were trained beside LoRA (`modules_to_save`):
 * `adapter_config.json` and `adapter_model.safetensors`, both or none. Errors: `NoAdapter` where the tree has no LoRA weights,
 * `NotSavable` for a parameter whose module PEFT cannot save, `WriteFailed`.
 */
export const saveAdapter = (
  dir: string,
  params: unknown,
  { base, beside = [], files = new Map() }: SaveAdapterOptions = {}
): TE.TaskEither<Issues, void> => {
  const [weights, shapes] = [loraWeights(params), shapesWithoutLora(params)]
  const loraSources = [...weights].flatMap(([module, { lora_A, lora_B }]) => [
    sourceOf(loraKeyOf(module, 'lora_A'), lora_A),
    sourceOf(loraKeyOf(module, 'lora_B'), lora_B)
  ])
  const write = (saved: readonly string[]) => {
    const json = adapterConfigJson(weights, [...linearLayers(shapes).keys()], base, saved)
    const savedSources = namedParameters(params)
      .filter(([path]) => saved.some((module) => isWithin(module, path)))
      .map(([path, leaf]) => sourceOf(keyOf(path), leaf))
    const allFiles = new Map([...files, [adapterConfigFile, `${JSON.stringify(json, null, 2)}\n`]])
    return writeSafetensorsFolder(dir, adapterWeightsFile, [...loraSources, ...savedSources], allFiles)
  }
  return pipe(
    weights.size > 0
      ? modulesToSave([...shapes.keys()], [...weights.keys()], beside)
      : invalid('NoAdapter', `${dir}: these parameters have no LoRA weights to save; addLora adds them`),
    TE.fromEither,
    TE.chain(write)
  )
}

type Pair = Partial<Record<'lora_A' | 'lora_B', TensorEntry>>

/** The tensors of an adapter file: A and B by module, parameters of saved modules by path, and keys of neither kind. */
interface AdapterTensors {
  readonly pairs: ReadonlyMap<string, Pair>
  readonly saved: ReadonlyMap<string, TensorEntry>
  readonly unknown: readonly string[]
}

const groupTensors = (entries: Iterable<TensorEntry>, { modulesToSave }: AdapterConfig): AdapterTensors => {
  const [pairs, saved, unknown] = [new Map<string, Pair>(), new Map<string, TensorEntry>(), [] as string[]]
  for (const entry of entries) {
    const [, module, part] = keyPattern.exec(entry.key) ?? []
    const [, parent, name] = savedPattern.exec(entry.key) ?? []
    if (module) pairs.set(module, { ...pairs.get(module), [part as 'lora_A']: entry })
    else if (parent && modulesToSave.length > 0) saved.set(`${parent}.${name}`, entry)
    else unknown.push(entry.key)
  }
  return { pairs, saved, unknown }
}

/** An error for every LoRA weight that does not fit a model. */
const loraMismatches = (
  file: string,
  config: AdapterConfig,
  modules: ReadonlyMap<string, readonly [number, number]>,
  { pairs, unknown }: AdapterTensors
): readonly Issue[] => [
  ...unknown.map((key) => issue('UnexpectedKey', `${file}: ${key} is not a LoRA weight of a linear layer`, { file, key })),
  ...[...pairs].flatMap(([module, { lora_A, lora_B }]) => {
    const shape = modules.get(module)
    if (!shape) return [issue('UnexpectedKey', `${file}: this model has no linear layer ${module}`, { file, key: module })]
    const rank = rankOf(config, module)
    const expected = { lora_A: [rank, shape[1]], lora_B: [shape[0], rank] }
    return (['lora_A', 'lora_B'] as const).flatMap((part) => {
      const [key, actual] = [loraKeyOf(module, part), { lora_A, lora_B }[part]?.shape]
      if (!actual) return [issue('MissingKey', `${file}: ${key} is missing`, { file, key })]
      return tf.util.arraysEqual([...actual], expected[part])
        ? []
        : [issue('ShapeMismatch', `${file}: ${key}: expected shape [${expected[part]}], got [${actual}]`, { file, key })]
    })
  }),
  ...targetedModules(config, [...modules.keys()]).flatMap((module) =>
    pairs.has(module)
      ? []
      : [
          issue(
            'MissingKey',
            `${file}: ${loraKeyOf(module, 'lora_A')} is missing, though adapter_config.json targets the layer`,
            {
              file,
              key: module
            }
          )
        ]
  )
]

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
export interface OpenAdapter extends Pick<AdapterTensors, 'pairs' | 'saved'> {
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
  (dir: string, shapes: Shapes, config: AdapterConfig, files: TensorFiles): TE.TaskEither<Issues, OpenAdapter> =>
  async () => {
    const file = join(dir, adapterWeightsFile)
    const tensors = groupTensors(files.entries.values(), config)
    const issues = issuesOf(() => [
      ...loraMismatches(file, config, linearLayers(shapes), tensors),
      ...savedModuleMismatches(file, config.modulesToSave, shapes, tensors.saved)
    ])
    if (issues.length > 0) await files.close()
    return whenValid(withSummary(dir, config, issues), () => ({ ...tensors, config, files }))
  }

/**
 * Opens a PEFT adapter folder for a model whose parameters have these shapes. Errors: a missing or malformed file, an unsupported
 * kind of adapter; every weight that is unknown to the model, missing or of another shape.
 */
export const openAdapter = (dir: string, shapes: Shapes): TE.TaskEither<Issues, OpenAdapter> =>
  pipe(
    readConfig(dir),
    TE.chain((config) =>
      pipe(
        openSafetensors(join(dir, adapterWeightsFile)),
        TE.chain((files) => checkFit(dir, shapes, config, files))
      )
    )
  )

/** The factor of a module's update: α/r, or α/√r with `rslora`. */
export const scalingOf = (config: AdapterConfig, module: string): number => {
  const rank = rankOf(config, module)
  return alphaOf(config, module) / (config.rslora ? Math.sqrt(rank) : rank)
}

/** Reads the tensors of an adapter in float32. A failure disposes those that were read. */
const readAdapter = async ({ files, pairs, saved, config }: OpenAdapter) => {
  const parts = new Map<string, LoraParts>()
  const parameters = new Map<string, tf.Tensor>()
  const read = async <R extends tf.Rank>(entry: TensorEntry) =>
    tf.tensor<R>(await files.readFloat32(entry), [...entry.shape] as tf.ShapeMap[R], 'float32')
  try {
    for (const [path, entry] of saved) parameters.set(path, await read(entry))
    for (const [module, { lora_A, lora_B }] of pairs) {
      const A = await read<tf.Rank.R2>(lora_A!)
      const B = await read<tf.Rank.R2>(lora_B!).catch((error) => {
        A.dispose()
        throw error
      })
      parts.set(module, { lora_A: A, lora_B: B, scaling: scalingOf(config, module), dropout: config.dropout })
    }
    return { parts, parameters }
  } catch (error) {
    disposeParams([...parameters.values(), ...[...parts.values()].flatMap(({ lora_A, lora_B }) => [lora_A, lora_B])])
    throw error
  }
}

/**
 * The tree with the LoRA weights of a PEFT folder: `weight` becomes `{ base, lora_A, lora_B, scaling }`, and saved modules replace
 * those of the tree. Other tensors are shared; the caller disposes the new ones (`loraLeaves`). A tree with quantized weights needs
 * `module`, which declares their shapes. Errors: as `openAdapter`.
 */
export const loadAdapter = <P>(dir: string, params: P, module?: Module<P>): TE.TaskEither<Issues, P> => {
  const declared = new Map(module ? declarations(module).map(([path, { shape }]) => [path, shape]) : [])
  return TE.bracket(
    openAdapter(dir, shapesWithoutLora(params, declared)),
    (adapter) =>
      TE.rightTask(async () => {
        const { parts, parameters } = await readAdapter(adapter)
        return attachLora(replaceLeaves(params, parameters), parts)
      }),
    ({ files }) => TE.rightTask(() => files.close())
  )
}
