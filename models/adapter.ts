import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { fromFloat32 } from '../lib/dtype.js'
import { type Fault, type Faults, fault, unless } from '../lib/fault.js'
import type { Module } from '../lib/module.js'
import { declarations } from '../lib/params.js'
import { openSafetensors, type TensorEntry, type TensorFiles } from '../lib/safetensors.js'
import { type SmallFiles, type TensorSource, writeSafetensorsFolder } from '../lib/safetensors-write.js'
import { tf } from '../lib/tf.js'
import { type AdapterConfig, alphaOf, configOf, parseAdapterConfig, rankOf, targetsOf } from './adapter-config.js'
import { attachLora, type LoraParts, linearModules, loraWeights } from './lora.js'

/** Names of PEFT's files. */
export const adapterConfigFile = 'adapter_config.json'
export const adapterFile = 'adapter_model.safetensors'

/** What PEFT puts before a module's path, and after it. */
const keyOf = (module: string, part: 'lora_A' | 'lora_B'): string => `base_model.model.${module}.${part}.weight`
const keyPattern = /^base_model\.model\.(.+)\.(lora_[AB])(?:\.default)?\.weight$/

const sourceOf = (key: string, tensor: tf.Tensor): TensorSource => ({
  key,
  dtype: 'F32',
  shape: tensor.shape,
  bytes: async function* () {
    yield fromFloat32((await tensor.data()) as Float32Array, 'F32')
  }
})

/**
 * Writes the LoRA weights of a tree as PEFT does: `adapter_config.json` and `adapter_model.safetensors`, whole or not at all. `base` is
 * the folder or name of the model that they are for. Faults: `NoAdapter` where the tree has none, `WriteFailed`.
 */
export const saveAdapter = (
  dir: string,
  params: unknown,
  { base, files = new Map() }: { readonly base?: string; readonly files?: SmallFiles } = {}
): TaskEither<Faults, void> => {
  const weights = loraWeights(params)
  if (weights.size === 0)
    return async () => E.left([fault('NoAdapter', `${dir}: these parameters have no LoRA weights to save; addLora adds them`)])
  const sources = [...weights].flatMap(([module, { lora_A, lora_B }]) => [
    sourceOf(keyOf(module, 'lora_A'), lora_A),
    sourceOf(keyOf(module, 'lora_B'), lora_B)
  ])
  const config = `${JSON.stringify(configOf(weights, [...linearModules(params).keys()], base), null, 2)}\n`
  return writeSafetensorsFolder(dir, adapterFile, sources, new Map([...files, [adapterConfigFile, config]]))
}

type Pair = Partial<Record<'lora_A' | 'lora_B', TensorEntry>>

const pairsOf = (
  entries: Iterable<TensorEntry>
): { readonly pairs: ReadonlyMap<string, Pair>; readonly strange: readonly string[] } => {
  const pairs = new Map<string, Pair>()
  const strange: string[] = []
  for (const entry of entries) {
    const [, module, part] = keyPattern.exec(entry.key) ?? []
    if (module) pairs.set(module, { ...pairs.get(module), [part as 'lora_A']: entry })
    else strange.push(entry.key)
  }
  return { pairs, strange }
}

/** All that keeps an adapter from fitting a model, key by key. */
const misfits = (
  file: string,
  config: AdapterConfig,
  modules: ReadonlyMap<string, readonly [number, number]>,
  { pairs, strange }: ReturnType<typeof pairsOf>
): readonly Fault[] => [
  ...strange.map((key) => fault('UnexpectedKey', `${file}: ${key} is no LoRA weight of a linear layer`, { file, key })),
  ...[...pairs].flatMap(([module, { lora_A, lora_B }]) => {
    const shape = modules.get(module)
    if (!shape) return [fault('UnexpectedKey', `${file}: ${module} is no linear layer of this model`, { file, key: module })]
    const rank = rankOf(config, module)
    const expected = { lora_A: [rank, shape[1]], lora_B: [shape[0], rank] }
    return (['lora_A', 'lora_B'] as const).flatMap((part) => {
      const [key, actual] = [keyOf(module, part), { lora_A, lora_B }[part]?.shape]
      if (!actual) return [fault('MissingKey', `${file}: ${key} is missing`, { file, key })]
      return tf.util.arraysEqual([...actual], expected[part])
        ? []
        : [fault('ShapeMismatch', `${file}: ${key}: expected shape [${expected[part]}], got [${actual}]`, { file, key })]
    })
  }),
  ...targetsOf(config, [...modules.keys()]).flatMap((module) =>
    pairs.has(module)
      ? []
      : [
          fault('MissingKey', `${file}: ${keyOf(module, 'lora_A')} is missing, a target of its configuration`, {
            file,
            key: module
          })
        ]
  )
]

const partsOf = async (files: TensorFiles, pairs: ReadonlyMap<string, Pair>, config: AdapterConfig) => {
  const read = async (entry: TensorEntry) => tf.tensor2d(await files.readFloat32(entry), entry.shape as [number, number])
  const parts = new Map<string, LoraParts>()
  for (const [module, { lora_A, lora_B }] of pairs) {
    const rank = rankOf(config, module)
    const scaling = alphaOf(config, module) / (config.rslora ? Math.sqrt(rank) : rank)
    parts.set(module, { lora_A: await read(lora_A!), lora_B: await read(lora_B!), scaling, dropout: config.dropout })
  }
  return parts
}

const readConfig = async (dir: string): Promise<E.Either<Faults, AdapterConfig>> => {
  const path = join(dir, adapterConfigFile)
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => error)
  if (typeof text === 'string') return parseAdapterConfig(path, text)
  const why = text.code === 'ENOENT' ? 'no such file; give the folder of a PEFT adapter' : `it cannot be read (${text.message})`
  return E.left([fault('FileMissing', `${path}: ${why}`, { file: path })])
}

/** The folder or name of the model that an adapter was made for, where its configuration says so. Faults: as `loadAdapter`. */
export const adapterBase =
  (dir: string): TaskEither<Faults, string | undefined> =>
  async () =>
    E.map(({ base }: AdapterConfig) => base)(await readConfig(dir))

/** What is wrong, with a first line that says what it comes to. */
const headed = (dir: string, { base }: AdapterConfig, faults: readonly Fault[]): readonly Fault[] =>
  faults.length === 0
    ? []
    : [
        fault('AdapterMisfit', `${dir}: this adapter is not for this model${base ? `; it was made for ${base}` : ''}`, {
          dir,
          base
        }),
        ...faults
      ]

/**
 * The tree with the LoRA weights of PEFT's folder beside its own: `weight` becomes `{ base, lora_A, lora_B, scaling }`. The base is
 * shared, what is new is its owner's to dispose (`loraParts`). Faults, all together: a file that is missing or malformed, a
 * kind of adapter that is not supported, weights that the model has no place for, of another shape, or lacking. Beside packed weights
 * it takes the module that declares their shapes.
 */
export const loadAdapter =
  <P>(dir: string, params: P, module?: Module<P>): TaskEither<Faults, P> =>
  async () => {
    const config = await readConfig(dir)
    if (E.isLeft(config)) return config
    const opened = await openSafetensors(join(dir, adapterFile))()
    if (E.isLeft(opened)) return opened
    try {
      const found = pairsOf(opened.right.entries.values())
      const declared = new Map(module ? declarations(module).map(([path, { shape }]) => [path, shape]) : [])
      const faults = misfits(join(dir, adapterFile), config.right, linearModules(params, declared), found)
      const fitting = unless(headed(dir, config.right, faults), () => found.pairs)
      return E.isLeft(fitting) ? fitting : E.right(attachLora(params, await partsOf(opened.right, fitting.right, config.right)))
    } finally {
      await opened.right.close()
    }
  }
