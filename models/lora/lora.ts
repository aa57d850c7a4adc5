import * as E from 'fp-ts/lib/Either.js'
import type { Issues } from '../../lib/error.js'
import type { LoraWeight } from '../../lib/nn/linear.js'
import { disposeParams, mapParams } from '../../lib/params.js'
import { dequantizePacked, formatOf, type StoredWeight } from '../../lib/quantization/formats.js'
import { tf } from '../../lib/tf.js'
import { adaptableModules, isStackedExperts, type LoraOptions, shapesWithoutLora, targetModules } from './lora-targets.js'

export {
  adaptableModules,
  allLinearModules,
  decoderTargets,
  isEmbedding,
  isLoraPath,
  type LoraOptions,
  linearLayers,
  pathWithoutLora,
  type Shapes,
  shapesWithoutLora,
  targetModules
} from './lora-targets.js'

/** The tree with the weights that `change` returns for a module path; other weights are shared with the given tree. */
const withWeights = <P>(params: P, change: (module: string, weight: unknown) => unknown): P => {
  const go = (node: unknown, path: string): unknown => {
    if (Array.isArray(node)) return node.map((child, i) => go(child, path === '' ? `${i}` : `${path}.${i}`))
    if (typeof node !== 'object' || node === null || node instanceof tf.Tensor) return node
    return Object.fromEntries(
      Object.entries(node).map(([key, child]) => {
        const childPath = path === '' ? key : `${path}.${key}`
        const changed =
          key === 'weight' ? change(path, child) : isStackedExperts(childPath) ? change(childPath, child) : undefined
        return [key, changed ?? go(child, childPath)]
      })
    )
  }
  return go(params, '') as P
}

const isLora = (weight: unknown): weight is LoraWeight =>
  typeof weight === 'object' && weight !== null && !(weight instanceof tf.Tensor) && 'lora_A' in weight

/** The leaves of a LoRA weight beside its base. Those of stacked experts have the experts as their first axis. */
export interface LoraParts {
  readonly lora_A: tf.Tensor
  readonly lora_B: tf.Tensor
  readonly lora_magnitude_vector?: tf.Tensor
  readonly scaling: number
  readonly dropout: number
}

const withParts = (weight: unknown, { scaling, dropout, ...matrices }: LoraParts) => {
  const base = isLora(weight) ? weight.base : weight
  // PEFT has no dropout for stacked experts: their update is part of the weight
  const rate = dropout > 0 && matrices.lora_A.rank === 2 ? { dropout: tf.scalar(dropout) } : {}
  return { base, ...matrices, scaling: tf.scalar(scaling), ...rate }
}

/** The tree with LoRA weights at the given module paths. Existing LoRA weights are replaced, not disposed. */
export const attachLora = <P>(params: P, parts: ReadonlyMap<string, LoraParts>): P =>
  withWeights(params, (module, weight) => {
    const part = parts.get(module)
    return part && withParts(weight, part)
  })

/** Lengths of the rows of a weight `[out, in]`: `[out]`, the magnitudes that DoRA starts from. */
const rowLengths = (weight: StoredWeight, columns: number): tf.Tensor1D =>
  tf.tidy(() => {
    const { format, tensor } = formatOf(weight)
    const W = format === 'float32' ? tensor : dequantizePacked(format, tensor, columns)
    return W.square().sum<tf.Tensor1D>(1).sqrt()
  })

/** Fresh LoRA matrices of a weight: the matrix at the input is random, A of `[out, in]` or B of experts `[E, in, out]`; the other is zero. */
const freshParts = (weight: unknown, shape: readonly number[], layerSeed: number, options: LoraOptions): LoraParts => {
  const { rank, alpha, dropout = 0, init = 'kaiming', useDora = false, useRslora = false } = options
  const [experts, rows, columns] = [shape.slice(0, -2), shape.at(-2)!, shape.at(-1)!]
  const random = (size: number[], features: number): tf.Tensor =>
    init === 'gaussian'
      ? tf.randomNormal(size, 0, 1 / rank, 'float32', layerSeed)
      : tf.randomUniform(size, -(features ** -0.5), features ** -0.5, 'float32', layerSeed)
  const [sizeA, sizeB] = [
    [...experts, rank, columns],
    [...experts, rows, rank]
  ]
  const [lora_A, lora_B] = experts.length > 0 ? [tf.zeros(sizeA), random(sizeB, rows)] : [random(sizeA, columns), tf.zeros(sizeB)]
  const base = (isLora(weight) ? weight.base : weight) as StoredWeight
  const magnitude = useDora ? { lora_magnitude_vector: rowLengths(base, columns) } : {}
  return { lora_A, lora_B, ...magnitude, scaling: alpha / (useRslora ? Math.sqrt(rank) : rank), dropout }
}

/**
 * The tree with a low-rank update beside the weight of every target: `weight` becomes `{ base, lora_A, lora_B, scaling }`, with
 * `lora_magnitude_vector` for DoRA. The outputs are unchanged, because one of A and B is zero. The base is shared; the caller disposes the
 * new tensors (`loraLeaves`). Errors, all of them: rank, alpha or dropout out of range, a target that matches no module.
 * Source: Hu et al. 2021; PEFT's `LoraConfig`.
 */
export const addLora = <P>(params: P, options: LoraOptions): E.Either<Issues, P> => {
  const shapes = shapesWithoutLora(params)
  return E.map((modules: readonly string[]) => {
    const weights = adaptableModules(shapes)
    const indexOf = new Map(modules.map((module, i) => [module, i]))
    return withWeights(params, (module, weight) => {
      const i = indexOf.get(module)
      if (i === undefined) return undefined
      return withParts(weight, freshParts(weight, weights.get(module)!, (options.seed ?? 0) * 100_003 + i, options))
    })
  })(targetModules(shapes, options))
}

/** The LoRA weights of a tree, by module path. */
export const loraWeights = (params: unknown): ReadonlyMap<string, LoraWeight> => {
  const found = new Map<string, LoraWeight>()
  withWeights(params, (module, weight) => void (isLora(weight) && found.set(module, weight)))
  return found
}

/** The tree without LoRA; all tensors are shared. */
export const withoutLora = <P>(params: P): P => withWeights(params, (_, weight) => (isLora(weight) ? weight.base : undefined))

const mergedWeight = ({ base, lora_A, lora_B, scaling, lora_magnitude_vector: magnitude }: LoraWeight): tf.Tensor | undefined => {
  if (!(base instanceof tf.Tensor)) return undefined
  return tf.tidy(() => {
    const sum = base.add(tf.matMul(lora_B, lora_A).mul(scaling))
    return magnitude ? sum.mul(magnitude.div(sum.square().sum(1).sqrt()).expandDims(1)) : sum
  })
}

/**
 * The tree with every LoRA weight replaced by `base + scaling · B A`, with DoRA's magnitudes, which computes the same. Merged weights are new tensors, all
 * others are shared. Throws a `RangeError` where the base is quantized: load in float32 to merge.
 */
export const mergeLora = <P>(params: P): P =>
  withWeights(params, (module, weight) => {
    if (!isLora(weight)) return undefined
    const merged = mergedWeight(weight)
    if (!merged) throw new RangeError(`mergeLora: ${module}.weight is quantized; load in float32 to merge`)
    return merged
  })

/**
 * `mergeLora` that disposes each LoRA weight after merging, so that memory holds at most one weight twice. The given tree must not
 * be used afterwards. LoRA weights on a quantized base stay.
 */
export const mergeLoraInPlace = <P>(params: P): P =>
  withWeights(params, (_, weight) => {
    const merged = isLora(weight) ? mergedWeight(weight) : undefined
    if (merged) disposeParams(weight)
    return merged
  })

/** The leaves that LoRA added to a tree, without the base weights; for `disposeParams`. */
export const loraLeaves = (params: unknown): unknown =>
  mapParams((leaf, path) => (/\.base($|\.)/.test(path) ? (undefined as never) : leaf))(Object.fromEntries(loraWeights(params)))
