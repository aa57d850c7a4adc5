import * as E from 'fp-ts/lib/Either.js'
import { type Issue, type Issues, issue, whenValid } from '../../lib/error.js'
import type { LoraWeight } from '../../lib/nn/linear.js'
import { disposeParams, mapParams, namedParameters } from '../../lib/params.js'
import { matchesPath, type PathPattern } from '../../lib/path-pattern.js'
import { forms } from '../../lib/quantization/formats.js'
import { tf } from '../../lib/tf.js'

export interface LoraOptions {
  /** Rows of A, columns of B: 1 at least. */
  readonly rank: number
  /** The update is scaled by alpha / rank. */
  readonly alpha: number
  /** Share of what goes into A that is dropped while training; 0 by default. */
  readonly dropout?: number
  /** Which linear layers, by the path of the module: `q_proj`, `language_model.**.mlp.*`, or a regular expression. */
  readonly targets: readonly PathPattern[]
  /** How A begins: `kaiming`, uniform within ±1/√in, or `gaussian`, of deviation 1/rank. B begins with zeros. Source: PEFT's `init_lora_weights`. */
  readonly init?: 'kaiming' | 'gaussian'
  readonly seed?: number
}

/** The two trained leaves of a LoRA weight, for `partition`. */
export const isLoraPath = (path: string): boolean => /\.weight\.lora_[AB]$/.test(path)

/** Path of a weight as it was before LoRA stood beside it. */
export const plainPath = (path: string): string => path.replace(/\.weight\.base$/, '.weight')

/** A parameter's path without LoRA, and the form of a packed weight. */
const withForm = new RegExp(`^(.*?)(?:(?<=\\.weight)\\.base)?(?:(?<=\\.weight(?:\\.base)?)\\.(${forms.join('|')}))?$`)

/** Shapes of parameters by path. */
export type Shapes = ReadonlyMap<string, readonly number[]>

/**
 * Shapes of a tree's parameters by their paths without LoRA. Packed ones are among them where `declared` has their shapes, for their
 * words do not tell them.
 */
export const plainShapes = (params: unknown, declared: Shapes = new Map()): Shapes =>
  new Map(
    namedParameters(params).flatMap(([path, leaf]) => {
      if (/\.weight\.(lora_[AB]|scaling|dropout)$/.test(path)) return []
      const [, plain, form] = withForm.exec(path)!
      const shape = form ? declared.get(plain!) : leaf.shape
      return shape ? [[plain!, shape] as const] : []
    })
  )

/** Paths of modules whose weight is a matrix that `affine` multiplies with, and its shape `[out, in]`. */
export const linearModules = (shapes: Shapes): ReadonlyMap<string, readonly [out: number, features: number]> =>
  new Map(
    [...shapes].flatMap(([path, shape]) => {
      const module = /^(.*)\.weight$/.exec(path)?.[1]
      return module && shape.length === 2 && !module.endsWith('embed_tokens')
        ? [[module, shape as [number, number]] as const]
        : []
    })
  )

const optionIssues = ({ rank, alpha, dropout = 0, targets }: LoraOptions, modules: readonly string[]): readonly Issue[] => [
  ...(Number.isInteger(rank) && rank >= 1
    ? []
    : [issue('LoraRank', `LoRA: the rank must be a whole number of 1 or more, got ${rank}`)]),
  ...(alpha > 0 ? [] : [issue('LoraAlpha', `LoRA: alpha must be above 0, got ${alpha}`)]),
  ...(dropout >= 0 && dropout < 1
    ? []
    : [issue('LoraDropout', `LoRA: the dropout must be at least 0 and below 1, got ${dropout}`)]),
  ...(targets.length > 0 ? [] : [issue('LoraTarget', 'LoRA: no targets are named')]),
  ...targets.flatMap((target) =>
    modules.some(matchesPath(target))
      ? []
      : [issue('LoraTarget', `LoRA: no linear layer matches ${target}; there are ${lastNames(modules).join(', ')}`, { target })]
  )
]

const lastNames = (modules: readonly string[]): readonly string[] => [...new Set(modules.map((path) => path.split('.').at(-1)!))]

/** The modules that options name. Errors: all that is wrong with them. */
export const loraModules = (shapes: Shapes, options: LoraOptions): E.Either<Issues, readonly string[]> => {
  const modules = [...linearModules(shapes).keys()]
  return whenValid(optionIssues(options, modules), () =>
    modules.filter((path) => options.targets.some((target) => matchesPath(target)(path)))
  )
}

/** A tree with other weights where `change` gives one for the module at a path; everything else is shared with the tree given. */
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

/** Parts of a LoRA weight beside its base. */
export interface LoraParts {
  readonly lora_A: tf.Tensor2D
  readonly lora_B: tf.Tensor2D
  readonly scaling: number
  readonly dropout: number
}

/** The tree with the given parts at the weights of modules; a part that is there already is replaced, not disposed. */
export const attachLora = <P>(params: P, parts: ReadonlyMap<string, LoraParts>): P =>
  withWeights(params, (module, weight) => {
    const part = parts.get(module)
    if (!part) return undefined
    const { lora_A, lora_B, scaling, dropout } = part
    const base = isLora(weight) ? weight.base : weight
    return { base, lora_A, lora_B, scaling: tf.scalar(scaling), ...(dropout > 0 ? { dropout: tf.scalar(dropout) } : {}) }
  })

/**
 * The tree with a low-rank update beside the weight of every target: `weight` becomes `{ base, lora_A, lora_B, scaling }`. It
 * computes what the tree computed, for B is zero. The base is shared, the rest is new and its owner's to dispose.
 * Errors: rank, alpha or dropout out of range, a target that names no linear layer; all together.
 * Source: Hu et al. 2021; PEFT's `LoraConfig`.
 */
export const addLora = <P>(params: P, options: LoraOptions): E.Either<Issues, P> =>
  E.map((modules: readonly string[]) => {
    const { rank, alpha, dropout = 0, init = 'kaiming', seed = 0 } = options
    const shapes = linearModules(plainShapes(params))
    const parts = modules.map((module, i): readonly [string, LoraParts] => {
      const [out, features] = shapes.get(module)!
      const own = seed * 100_003 + i
      const lora_A =
        init === 'gaussian'
          ? tf.randomNormal<tf.Rank.R2>([rank, features], 0, 1 / rank, 'float32', own)
          : tf.randomUniform<tf.Rank.R2>([rank, features], -(features ** -0.5), features ** -0.5, 'float32', own)
      return [module, { lora_A, lora_B: tf.zeros<tf.Rank.R2>([out, rank]), scaling: alpha / rank, dropout }]
    })
    return attachLora(params, new Map(parts))
  })(loraModules(plainShapes(params), options))

/** The LoRA weights of a tree, by module. */
export const loraWeights = (params: unknown): ReadonlyMap<string, LoraWeight> => {
  const found = new Map<string, LoraWeight>()
  withWeights(params, (module, weight) => void (isLora(weight) && found.set(module, weight)))
  return found
}

/** The tree as it was before `addLora`, shared. */
export const withoutLora = <P>(params: P): P => withWeights(params, (_, weight) => (isLora(weight) ? weight.base : undefined))

const mergedWeight = ({ base, lora_A, lora_B, scaling }: LoraWeight): tf.Tensor | undefined =>
  base instanceof tf.Tensor ? tf.tidy(() => base.add(tf.matMul(lora_B, lora_A).mul(scaling))) : undefined

/**
 * A plain tree that computes the same: `base + scaling · B A` in the place of LoRA weights. Those are new tensors, all others are
 * shared. Throws a `RangeError` where the base is packed: load in float32 to merge.
 */
export const mergeLora = <P>(params: P): P =>
  withWeights(params, (module, weight) => {
    if (!isLora(weight)) return undefined
    const merged = mergedWeight(weight)
    if (!merged) throw new RangeError(`mergeLora: ${module}.weight is packed; load in float32 to merge`)
    return merged
  })

/**
 * As `mergeLora`, weight by weight in the place of what was there, which is freed, so that memory holds one weight twice at most: the
 * tree is consumed. What stands beside a packed base stays there.
 */
export const absorbLora = <P>(params: P): P =>
  withWeights(params, (_, weight) => {
    const merged = isLora(weight) ? mergedWeight(weight) : undefined
    if (merged) disposeParams(weight)
    return merged
  })

/** The leaves that LoRA added to a tree, for `disposeParams`: the base stays. */
export const loraParts = (params: unknown): unknown =>
  mapParams((leaf, path) => (/\.base($|\.)/.test(path) ? (undefined as never) : leaf))(Object.fromEntries(loraWeights(params)))
