import * as E from 'fp-ts/lib/Either.js'
import { type Issue, type Issues, issue, whenValid } from '../../lib/error.js'
import type { LoraWeight } from '../../lib/nn/linear.js'
import { disposeParams, mapParams, namedParameters } from '../../lib/params.js'
import { matchesPath, type PathPattern } from '../../lib/path-pattern.js'
import { quantizationFormats } from '../../lib/quantization/formats.js'
import { tf } from '../../lib/tf.js'
import { families } from '../families.js'

/** Name of the embeddings in a decoder, which is the same in all model families. */
const embeddings = families[0].parts.embeddings.split('.').at(-1)!

export interface LoraOptions {
  /** Number of rows of A and of columns of B, 1 or more. */
  readonly rank: number
  /** The update is scaled by alpha / rank. */
  readonly alpha: number
  /** Dropout probability of the input of A in training; 0 by default. */
  readonly dropout?: number
  /** Linear layers to adapt, by module path: `q_proj`, `language_model.**.mlp.*`, or a regular expression. */
  readonly targets: readonly PathPattern[]
  /** Initialization of A: `kaiming`, uniform within ±1/√in, or `gaussian`, with standard deviation 1/rank. B is zero. Source: PEFT's `init_lora_weights`. */
  readonly init?: 'kaiming' | 'gaussian'
  readonly seed?: number
}

/** Whether a path is one of the two trained leaves of a LoRA weight, for `partition`. */
export const isLoraPath = (path: string): boolean => /\.weight\.lora_[AB]$/.test(path)

/** Path that a weight has without LoRA. */
export const pathWithoutLora = (path: string): string => path.replace(/\.weight\.base$/, '.weight')

/** Matches a parameter's path without LoRA, and the format of a quantized weight. */
const pathAndFormat = new RegExp(
  `^(.*?)(?:(?<=\\.weight)\\.base)?(?:(?<=\\.weight(?:\\.base)?)\\.(${quantizationFormats.join('|')}))?$`
)

/** Whether the weight of a module is an embedding table: a matrix, but no linear layer. */
export const isEmbedding = (module: string): boolean => module === embeddings || module.endsWith(`.${embeddings}`)

/** Shapes of parameters by path. */
export type Shapes = ReadonlyMap<string, readonly number[]>

/**
 * Shapes of a tree's parameters by their paths without LoRA. Quantized weights are included where `declared` has their shapes,
 * which the packed data does not say.
 */
export const shapesWithoutLora = (params: unknown, declared: Shapes = new Map()): Shapes =>
  new Map(
    namedParameters(params).flatMap(([path, leaf]) => {
      if (/\.weight\.(lora_[AB]|scaling|dropout)$/.test(path)) return []
      const [, original, format] = pathAndFormat.exec(path)!
      const shape = format ? declared.get(original!) : leaf.shape
      return shape ? [[original!, shape] as const] : []
    })
  )

/** Paths of the linear layers of a model, and the shape of their weights `[out, in]`. */
export const linearLayers = (shapes: Shapes): ReadonlyMap<string, readonly [out: number, features: number]> =>
  new Map(
    [...shapes].flatMap(([path, shape]) => {
      const module = /^(.*)\.weight$/.exec(path)?.[1]
      return module && shape.length === 2 && !isEmbedding(module) ? [[module, shape as [number, number]] as const] : []
    })
  )

const optionIssues = ({ rank, alpha, dropout = 0, targets }: LoraOptions, modules: readonly string[]): readonly Issue[] => [
  ...(Number.isInteger(rank) && rank >= 1
    ? []
    : [issue('LoraRank', `LoRA: the rank must be an integer of 1 or more, got ${rank}`)]),
  ...(alpha > 0 ? [] : [issue('LoraAlpha', `LoRA: alpha must be above 0, got ${alpha}`)]),
  ...(dropout >= 0 && dropout < 1
    ? []
    : [issue('LoraDropout', `LoRA: the dropout must be at least 0 and below 1, got ${dropout}`)]),
  ...(targets.length > 0 ? [] : [issue('LoraTarget', 'LoRA: targets is empty; name at least one linear layer')]),
  ...targets.flatMap((target) =>
    modules.some(matchesPath(target))
      ? []
      : [
          issue('LoraTarget', `LoRA: no linear layer matches ${target}; the model has ${lastNames(modules).join(', ')}`, {
            target
          })
        ]
  )
]

const lastNames = (modules: readonly string[]): readonly string[] => [...new Set(modules.map((path) => path.split('.').at(-1)!))]

/** The linear layers that the options target. Errors: every invalid option. */
export const targetModules = (shapes: Shapes, options: LoraOptions): E.Either<Issues, readonly string[]> => {
  const modules = [...linearLayers(shapes).keys()]
  return whenValid(optionIssues(options, modules), () =>
    modules.filter((path) => options.targets.some((target) => matchesPath(target)(path)))
  )
}

/** The tree with the weights that `change` returns for a module path; other weights are shared with the given tree. */
const withWeights = <P>(params: P, change: (module: string, weight: unknown) => unknown): P => {
  const go = (node: unknown, path: string): unknown => {
    if (Array.isArray(node)) return node.map((child, i) => go(child, path === '' ? `${i}` : `${path}.${i}`))
    if (typeof node !== 'object' || node === null || node instanceof tf.Tensor) return node
    return Object.fromEntries(
      Object.entries(node).map(([key, child]) => {
        const changed = key === 'weight' ? change(path, child) : undefined
        return [key, changed ?? go(child, path === '' ? key : `${path}.${key}`)]
      })
    )
  }
  return go(params, '') as P
}

const isLora = (weight: unknown): weight is LoraWeight =>
  typeof weight === 'object' && weight !== null && !(weight instanceof tf.Tensor) && 'lora_A' in weight

/** The leaves of a LoRA weight beside its base. */
export interface LoraParts {
  readonly lora_A: tf.Tensor2D
  readonly lora_B: tf.Tensor2D
  readonly scaling: number
  readonly dropout: number
}

/** The tree with LoRA weights at the given module paths. Existing LoRA weights are replaced, not disposed. */
export const attachLora = <P>(params: P, parts: ReadonlyMap<string, LoraParts>): P =>
  withWeights(params, (module, weight) => {
    const part = parts.get(module)
    if (!part) return undefined
    const { lora_A, lora_B, scaling, dropout } = part
    const base = isLora(weight) ? weight.base : weight
    return { base, lora_A, lora_B, scaling: tf.scalar(scaling), ...(dropout > 0 ? { dropout: tf.scalar(dropout) } : {}) }
  })

/**
 * The tree with a low-rank update beside the weight of every target: `weight` becomes `{ base, lora_A, lora_B, scaling }`. The
 * outputs are unchanged, because B is zero. The base is shared; the caller disposes the new tensors (`loraLeaves`).
 * Errors, all of them: rank, alpha or dropout out of range, a target that matches no linear layer.
 * Source: Hu et al. 2021; PEFT's `LoraConfig`.
 */
export const addLora = <P>(params: P, options: LoraOptions): E.Either<Issues, P> =>
  E.map((modules: readonly string[]) => {
    const { rank, alpha, dropout = 0, init = 'kaiming', seed = 0 } = options
    const shapes = linearLayers(shapesWithoutLora(params))
    const parts = modules.map((module, i): readonly [string, LoraParts] => {
      const [out, features] = shapes.get(module)!
      const layerSeed = seed * 100_003 + i
      const lora_A =
        init === 'gaussian'
          ? tf.randomNormal<tf.Rank.R2>([rank, features], 0, 1 / rank, 'float32', layerSeed)
          : tf.randomUniform<tf.Rank.R2>([rank, features], -(features ** -0.5), features ** -0.5, 'float32', layerSeed)
      return [module, { lora_A, lora_B: tf.zeros<tf.Rank.R2>([out, rank]), scaling: alpha / rank, dropout }]
    })
    return attachLora(params, new Map(parts))
  })(targetModules(shapesWithoutLora(params), options))

/** The LoRA weights of a tree, by module path. */
export const loraWeights = (params: unknown): ReadonlyMap<string, LoraWeight> => {
  const found = new Map<string, LoraWeight>()
  withWeights(params, (module, weight) => void (isLora(weight) && found.set(module, weight)))
  return found
}

/** The tree without LoRA; all tensors are shared. */
export const withoutLora = <P>(params: P): P => withWeights(params, (_, weight) => (isLora(weight) ? weight.base : undefined))

const mergedWeight = ({ base, lora_A, lora_B, scaling }: LoraWeight): tf.Tensor | undefined =>
  base instanceof tf.Tensor ? tf.tidy(() => base.add(tf.matMul(lora_B, lora_A).mul(scaling))) : undefined

/**
 * The tree with every LoRA weight replaced by `base + scaling · B A`, which computes the same. Merged weights are new tensors, all
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
