import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { fromFloat32 } from '../../lib/dtype.js'
import { type Issues, invalid } from '../../lib/error.js'
import type { LoraWeight } from '../../lib/nn/linear.js'
import { namedParameters } from '../../lib/params.js'
import { type SidecarFiles, type TensorSource, writeSafetensorsFolder } from '../../lib/safetensors/write.js'
import { tf } from '../../lib/tf.js'
import { families, isWithin } from '../families.js'
import { type AdapterConfig, adapterConfigFile, adapterConfigJson, adapterWeightsFile } from './adapter-config.js'
import { keyOf, loraKeyOf } from './adapter-keys.js'
import { modulesToSave } from './adapter-modules.js'
import { loraWeights } from './lora.js'
import { adaptableModules, isEmbedding, isStackedExperts, pathWithoutLora, shapesWithoutLora } from './lora-targets.js'

const { head } = families[0].parts

const plainSource = (key: string, tensor: tf.Tensor): TensorSource => ({
  key,
  dtype: 'F32',
  shape: tensor.shape,
  bytes: async function* () {
    yield fromFloat32((await tensor.data()) as Float32Array, 'F32')
  }
})

/** Rearranged values of a tensor; the temporary tensor is disposed after it was read. */
const changedSource = (
  key: string,
  tensor: tf.Tensor,
  shape: readonly number[],
  change: (t: tf.Tensor) => tf.Tensor
): TensorSource => ({
  key,
  dtype: 'F32',
  shape,
  bytes: async function* () {
    const changed = tf.tidy(() => change(tensor))
    const values = await changed.data().finally(() => changed.dispose())
    yield fromFloat32(values as Float32Array, 'F32')
  }
})

const transposedSource = (key: string, tensor: tf.Tensor): TensorSource =>
  changedSource(key, tensor, [...tensor.shape].reverse(), (t) => t.transpose())

/**
 * LoRA of stacked experts as PEFT's `ParamWrapper` stores it: A `[E · rank, in]`, and B `[out, rank · E]` with alternating experts. Of two
 * parameters of a module the first, `gate_up_proj`, is the inner wrapper.
 */
const expertSources = (
  path: string,
  { lora_A, lora_B }: LoraWeight,
  all: ReadonlyMap<string, LoraWeight>
): readonly TensorSource[] => {
  const module = path.slice(0, path.lastIndexOf('.'))
  const isInner = path.endsWith('.gate_up_proj') && all.has(`${module}.down_proj`)
  const [A, B]: readonly tf.Tensor[] = [lora_A, lora_B]
  const [E, rank, out] = A!.shape as [number, number, number]
  const inner = B!.shape[1]!
  const wrapper = isInner ? `${module}.base_layer` : module
  return [
    changedSource(loraKeyOf(wrapper, 'lora_A'), B!, [E * rank, inner], (t) => t.transpose([0, 2, 1]).reshape([E * rank, inner])),
    changedSource(loraKeyOf(wrapper, 'lora_B'), A!, [out, rank * E], (t) => t.transpose([2, 1, 0]).reshape([out, rank * E]))
  ]
}

/** The tensors of a module's LoRA. PEFT gives a tied head the LoRA of its embeddings. */
const loraSources = (
  module: string,
  weight: LoraWeight,
  all: ReadonlyMap<string, LoraWeight>,
  isTied: boolean
): readonly TensorSource[] => {
  const { lora_A, lora_B, lora_magnitude_vector: magnitude } = weight
  if (isStackedExperts(module)) return expertSources(module, weight, all)
  const linear = (name: string) => [
    plainSource(loraKeyOf(name, 'lora_A'), lora_A),
    plainSource(loraKeyOf(name, 'lora_B'), lora_B)
  ]
  if (!isEmbedding(module))
    return [...linear(module), ...(magnitude ? [plainSource(loraKeyOf(module, 'lora_magnitude_vector'), magnitude)] : [])]
  return [
    transposedSource(loraKeyOf(module, 'lora_embedding_A'), lora_B),
    transposedSource(loraKeyOf(module, 'lora_embedding_B'), lora_A),
    ...(isTied ? linear(head) : [])
  ]
}

export interface SaveAdapterOptions {
  /** Folder or name of the model that the adapter is for. */
  readonly base?: string
  /** Paths of parameters that were trained beside LoRA; their modules are saved whole, biases of modules with LoRA alone. */
  readonly beside?: readonly string[]
  /**
   * PEFT's `bias`: the biases of `beside` are saved as such, not with their modules. By default `lora_only` or `all` where `beside` has
   * the bias of a module with LoRA, else `none`.
   */
  readonly bias?: AdapterConfig['bias']
  readonly files?: SidecarFiles
}

const moduleOf = (path: string): string => path.slice(0, path.lastIndexOf('.'))
const isBias = (path: string): boolean => path.endsWith('.bias')

const biasMode = (beside: readonly string[], hasLora: (module: string) => boolean): AdapterConfig['bias'] => {
  const biases = beside.filter(isBias)
  if (!biases.some((path) => hasLora(moduleOf(path)))) return 'none'
  return biases.every((path) => hasLora(moduleOf(path))) ? 'lora_only' : 'all'
}

/**
 * Splits the parameters that were trained beside LoRA: the biases that PEFT's `bias` covers, and the modules to save whole. Errors:
 * `NotSavable` for a parameter whose module contains LoRA.
 */
export const besideLora = (
  paths: readonly string[],
  lora: readonly string[],
  beside: readonly string[],
  bias: AdapterConfig['bias'] = biasMode(beside, (module) => lora.includes(module))
) => {
  const biases = bias === 'none' ? [] : beside.filter(isBias)
  return {
    bias,
    biases,
    saved: modulesToSave(
      paths,
      lora,
      beside.filter((path) => !biases.includes(path))
    )
  }
}

/**
 * Writes the LoRA weights of a tree in PEFT's format, with the modules that were trained beside LoRA (`modules_to_save`):
 * `adapter_config.json` and `adapter_model.safetensors`, both or none. Errors: `NoAdapter` where the tree has no LoRA weights,
 * `NotSavable` for a parameter whose module PEFT cannot save, `WriteFailed`.
 */
export const saveAdapter = (
  dir: string,
  params: unknown,
  { base, beside = [], bias: wanted, files = new Map() }: SaveAdapterOptions = {}
): TE.TaskEither<Issues, void> => {
  const [weights, shapes] = [loraWeights(params), shapesWithoutLora(params)]
  const isTied = [...shapes.keys()].some((path) => isEmbedding(moduleOf(path))) && !shapes.has(`${head}.weight`)
  const { bias, biases, saved } = besideLora([...shapes.keys()], [...weights.keys()], beside, wanted)
  const write = (modules: readonly string[]) => {
    const isSaved = (path: string) => modules.some((module) => isWithin(module, path))
    const leaves = namedParameters(params).map(([path, leaf]) => [pathWithoutLora(path), leaf] as const)
    const savedSources = leaves.flatMap(([path, leaf]) => {
      if (biases.includes(path)) return [plainSource(keyOf(weights.has(moduleOf(path)) ? `${moduleOf(path)}.base_layer.bias` : path), leaf)] // biome-ignore format: one line
      if (!isSaved(path)) return []
      const tiedHead = isTied && isEmbedding(moduleOf(path)) ? [plainSource(keyOf(`${head}.weight`), leaf)] : []
      return [plainSource(keyOf(path), leaf), ...tiedHead]
    })
    const tied = isTied && ([...weights.keys()].some(isEmbedding) || modules.some((module) => [...shapes.keys()].some((path) => isWithin(module, path) && isEmbedding(moduleOf(path))))) // biome-ignore format: one line
    const json = adapterConfigJson({ weights, modules: [...adaptableModules(shapes).keys()], base, modulesToSave: modules, bias, tied }) // biome-ignore format: one line
    const allFiles = new Map([...files, [adapterConfigFile, `${JSON.stringify(json, null, 2)}\n`]])
    const sources = [...weights].flatMap(([module, weight]) => loraSources(module, weight, weights, isTied))
    return writeSafetensorsFolder(dir, adapterWeightsFile, [...sources, ...savedSources], allFiles)
  }
  return pipe(
    weights.size > 0 ? saved : invalid('NoAdapter', `${dir}: these parameters have no LoRA weights to save; addLora adds them`),
    TE.fromEither,
    TE.chain(write)
  )
}
