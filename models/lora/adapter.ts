import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { fromFloat32 } from '../../lib/dtype.js'
import { type Issue, type Issues, issue, whenValid } from '../../lib/error.js'
import type { Module } from '../../lib/module.js'
import { declarations, namedParameters } from '../../lib/params.js'
import { openSafetensors, type TensorEntry, type TensorFiles } from '../../lib/safetensors/read.js'
import { type SmallFiles, type TensorSource, writeSafetensorsFolder } from '../../lib/safetensors/write.js'
import { tf } from '../../lib/tf.js'
import { type AdapterConfig, alphaOf, configOf, parseAdapterConfig, rankOf, targetsOf } from './adapter-config.js'
import { savedMisfits, savedModules, within, withLeaves } from './adapter-modules.js'
import { attachLora, type LoraParts, linearModules, loraWeights, plainShapes, type Shapes } from './lora.js'

/** Names of PEFT's files. */
export const adapterConfigFile = 'adapter_config.json'
export const adapterFile = 'adapter_model.safetensors'

/** What PEFT puts before a module's path, and after it. */
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
  /** Paths of parameters that were trained beside LoRA: the modules that they are in are saved whole. */
  readonly beside?: readonly string[]
  readonly files?: SmallFiles
}

/**
 * Writes the LoRA weights of a tree as PEFT does, and the modules that were trained beside them (`modules_to_save`):
 * `adapter_config.json` and `adapter_model.safetensors`, whole or not at all. Errors: `NoAdapter` where the tree has none,
 * `NotSavable` for a parameter whose module PEFT can't save, `WriteFailed`.
 */
export const saveAdapter = (
  dir: string,
  params: unknown,
  { base, beside = [], files = new Map() }: SaveAdapterOptions = {}
): TaskEither<Issues, void> => {
  const [weights, shapes] = [loraWeights(params), plainShapes(params)]
  if (weights.size === 0)
    return async () => E.left([issue('NoAdapter', `${dir}: these parameters have no LoRA weights to save; addLora adds them`)])
  const saved = savedModules([...shapes.keys()], [...weights.keys()], beside)
  if (E.isLeft(saved)) return async () => saved
  const sources = [...weights].flatMap(([module, { lora_A, lora_B }]) => [
    sourceOf(loraKeyOf(module, 'lora_A'), lora_A),
    sourceOf(loraKeyOf(module, 'lora_B'), lora_B)
  ])
  const whole = namedParameters(params).filter(([path]) => saved.right.some((module) => within(module, path)))
  const config = `${JSON.stringify(configOf(weights, [...linearModules(shapes).keys()], base, saved.right), null, 2)}\n`
  const all = [...sources, ...whole.map(([path, leaf]) => sourceOf(keyOf(path), leaf))]
  return writeSafetensorsFolder(dir, adapterFile, all, new Map([...files, [adapterConfigFile, config]]))
}

type Pair = Partial<Record<'lora_A' | 'lora_B', TensorEntry>>

/** What an adapter's file holds: pairs by module, other tensors by the path that they take the place of, and keys that are neither. */
interface Found {
  readonly pairs: ReadonlyMap<string, Pair>
  readonly saved: ReadonlyMap<string, TensorEntry>
  readonly strange: readonly string[]
}

const found = (entries: Iterable<TensorEntry>, { modulesToSave }: AdapterConfig): Found => {
  const [pairs, saved, strange] = [new Map<string, Pair>(), new Map<string, TensorEntry>(), [] as string[]]
  for (const entry of entries) {
    const [, module, part] = keyPattern.exec(entry.key) ?? []
    const [, owner, name] = savedPattern.exec(entry.key) ?? []
    if (module) pairs.set(module, { ...pairs.get(module), [part as 'lora_A']: entry })
    else if (owner && modulesToSave.length > 0) saved.set(`${owner}.${name}`, entry)
    else strange.push(entry.key)
  }
  return { pairs, saved, strange }
}

/** All that keeps pairs from fitting a model, key by key. */
const pairMisfits = (
  file: string,
  config: AdapterConfig,
  modules: ReadonlyMap<string, readonly [number, number]>,
  { pairs, strange }: Found
): readonly Issue[] => [
  ...strange.map((key) => issue('UnexpectedKey', `${file}: ${key} is no LoRA weight of a linear layer`, { file, key })),
  ...[...pairs].flatMap(([module, { lora_A, lora_B }]) => {
    const shape = modules.get(module)
    if (!shape) return [issue('UnexpectedKey', `${file}: ${module} is no linear layer of this model`, { file, key: module })]
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
  ...targetsOf(config, [...modules.keys()]).flatMap((module) =>
    pairs.has(module)
      ? []
      : [
          issue('MissingKey', `${file}: ${loraKeyOf(module, 'lora_A')} is missing, a target of its configuration`, {
            file,
            key: module
          })
        ]
  )
]

const readConfig = async (dir: string): Promise<E.Either<Issues, AdapterConfig>> => {
  const path = join(dir, adapterConfigFile)
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => error)
  if (typeof text === 'string') return parseAdapterConfig(path, text)
  const why = text.code === 'ENOENT' ? 'no such file; give the folder of a PEFT adapter' : `it cannot be read (${text.message})`
  return E.left([issue('FileMissing', `${path}: ${why}`, { file: path })])
}

/** The folder or name of the model that an adapter was made for, where its configuration says so. Errors: as `loadAdapter`. */
export const adapterBase =
  (dir: string): TaskEither<Issues, string | undefined> =>
  async () =>
    E.map(({ base }: AdapterConfig) => base)(await readConfig(dir))

/** What is wrong, with a first line that says what it comes to. */
const headed = (dir: string, { base }: AdapterConfig, issues: readonly Issue[]): readonly Issue[] =>
  issues.length === 0
    ? []
    : [
        issue('AdapterMisfit', `${dir}: this adapter is not for this model${base ? `; it was made for ${base}` : ''}`, {
          dir,
          base
        }),
        ...issues
      ]

/** An adapter whose weights fit a model, before they are read. Close `files` when done. */
export interface OpenAdapter extends Pick<Found, 'pairs' | 'saved'> {
  readonly config: AdapterConfig
  readonly files: TensorFiles
}

/**
 * Opens PEFT's folder for a model whose parameters have these shapes. Errors, all together: a file that is missing or malformed, a
 * kind of adapter that is not supported, weights that the model has no place for, of another shape, or lacking.
 */
export const openAdapter =
  (dir: string, shapes: Shapes): TaskEither<Issues, OpenAdapter> =>
  async () => {
    const config = await readConfig(dir)
    if (E.isLeft(config)) return config
    const opened = await openSafetensors(join(dir, adapterFile))()
    if (E.isLeft(opened)) return opened
    const [file, files] = [join(dir, adapterFile), opened.right]
    const all = found(files.entries.values(), config.right)
    const issues = [
      ...pairMisfits(file, config.right, linearModules(shapes), all),
      ...savedMisfits(file, config.right.modulesToSave, shapes, all.saved)
    ]
    if (issues.length > 0) await files.close()
    return whenValid(headed(dir, config.right, issues), () => ({ ...all, config: config.right, files }))
  }

/** By what an adapter's update of a module is multiplied. */
export const scalingOf = (config: AdapterConfig, module: string): number => {
  const rank = rankOf(config, module)
  return alphaOf(config, module) / (config.rslora ? Math.sqrt(rank) : rank)
}

const partsOf = async ({ files, pairs, config }: OpenAdapter) => {
  const read = async (entry: TensorEntry) => tf.tensor2d(await files.readFloat32(entry), entry.shape as [number, number])
  const parts = new Map<string, LoraParts>()
  for (const [module, { lora_A, lora_B }] of pairs) {
    const [scaling, { dropout }] = [scalingOf(config, module), config]
    parts.set(module, { lora_A: await read(lora_A!), lora_B: await read(lora_B!), scaling, dropout })
  }
  return parts
}

const savedOf = async ({ files, saved }: OpenAdapter) => {
  const tensors = new Map<string, tf.Tensor>()
  for (const [path, entry] of saved) tensors.set(path, tf.tensor(await files.readFloat32(entry), [...entry.shape], 'float32'))
  return tensors
}

/**
 * The tree with the LoRA weights of PEFT's folder beside its own: `weight` becomes `{ base, lora_A, lora_B, scaling }`; modules that
 * were trained as a whole are in the place of its own. The rest is shared, what is new is its owner's to dispose (`loraParts`).
 * Errors: as `openAdapter`. Beside packed weights it takes the module that declares their shapes.
 */
export const loadAdapter =
  <P>(dir: string, params: P, module?: Module<P>): TaskEither<Issues, P> =>
  async () => {
    const declared = new Map(module ? declarations(module).map(([path, { shape }]) => [path, shape]) : [])
    const opened = await openAdapter(dir, plainShapes(params, declared))()
    if (E.isLeft(opened)) return opened
    try {
      const replaced = withLeaves(params, await savedOf(opened.right))
      return E.right(attachLora(replaced, await partsOf(opened.right)))
    } finally {
      await opened.right.files.close()
    }
  }
