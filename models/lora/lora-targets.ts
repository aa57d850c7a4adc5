import type * as E from 'fp-ts/lib/Either.js'
import { type Issue, type Issues, issue, whenValid } from '../../lib/error.js'
import { namedParameters } from '../../lib/params.js'
import { quantizationFormats } from '../../lib/quantization/formats.js'
import { matchesPath, type PathPattern } from '../../lib/tap/path-pattern.js'
import { families, partOfPath } from '../families.js'
import { allLinear } from './adapter-config.js'
import { escapedPath } from './module-pattern.js'

const { head, embeddings: embeddingsPath } = families[0].parts

/** Name of the embeddings in a decoder, which is the same in all model families. */
const embeddings = embeddingsPath.split('.').at(-1)!

export interface LoraOptions {
  /** Number of rows of A and of columns of B, 1 or more. */
  readonly rank: number
  /** The update is scaled by alpha / rank. */
  readonly alpha: number
  /** Dropout probability of the input of A in training; 0 by default. */
  readonly dropout?: number
  /**
   * Modules to adapt, by path: `q_proj`, `language_model.**.mlp.*`, or a regular expression. Linear layers, embeddings, and the stacked
   * experts of GPT-OSS (`experts.gate_up_proj`). `all-linear` is every linear layer but head and routers.
   */
  readonly targets: readonly PathPattern[]
  /** Trains the lengths of the rows of each weight beside their directions (DoRA); linear layers only. Source: Liu et al. 2024. */
  readonly useDora?: boolean
  /** Scales the update by alpha / √rank instead of alpha / rank. Source: Kalajdzievski 2023, rsLoRA. */
  readonly useRslora?: boolean
  /** Initialization of A: `kaiming`, uniform within ±1/√in, or `gaussian`, with standard deviation 1/rank. B is zero. Source: PEFT's `init_lora_weights`. */
  readonly init?: 'kaiming' | 'gaussian'
  readonly seed?: number
}

/** Whether a path is one of the trained leaves of a LoRA weight (A, B, and the magnitudes of DoRA), for `partition`. */
export const isLoraPath = (path: string): boolean => /\.lora_(A|B|magnitude_vector)$/.test(path)

/** Path that a weight has without LoRA. */
export const pathWithoutLora = (path: string): string => path.replace(/\.base$/, '')

/** Matches a parameter's path without LoRA, and the format of a quantized weight. */
const pathAndFormat = new RegExp(`^(.*?)(?:\\.base)?(?:(?<=\\.weight(?:\\.base)?)\\.(${quantizationFormats.join('|')}))?$`)

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
      if (isLoraPath(path) || /\.(weight|experts\.\w+)\.(scaling|dropout)$/.test(path)) return []
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

/** Whether a path is a weight of all experts of a layer, `[E, in, out]`, which is a parameter without a module of its own. */
export const isStackedExperts = (path: string): boolean => /\.experts\.(gate_up_proj|down_proj)$/.test(path)

/** Shapes of the weights that can have LoRA, by module path: linear layers, embeddings and stacked experts. */
export const adaptableModules = (shapes: Shapes): ReadonlyMap<string, readonly number[]> =>
  new Map(
    [...shapes].flatMap(([path, shape]) => {
      if (isStackedExperts(path) && shape.length === 3) return [[path, shape] as const]
      const module = /^(.*)\.weight$/.exec(path)?.[1]
      return module && shape.length === 2 ? [[module, shape] as const] : []
    })
  )

/** Whether a linear layer is a router or the head, which PEFT's `all-linear` leaves out. */
const isRouterOrHead = (module: string): boolean =>
  module === head ||
  /\.mlp\.(gate|router)$/.test(module) ||
  ['pooling', 'gating', 'quarterProjector'].includes(partOfPath(module) ?? '')

/** The modules of `all-linear`: every linear layer but head and routers. */
export const allLinearModules = (shapes: Shapes): readonly string[] =>
  [...linearLayers(shapes).keys()].filter((module) => !isRouterOrHead(module))

/** Default targets: every linear layer of the decoder but routers, and stacked experts. Source: `wrap_llm_lora` (OpenGVLab). */
export const decoderTargets = (shapes: Shapes): readonly RegExp[] =>
  [...allLinearModules(shapes), ...[...shapes.keys()].filter(isStackedExperts)]
    .filter((module) => partOfPath(module) === 'decoder')
    .map((module) => new RegExp(escapedPath(module)))

const matchedModules = (target: PathPattern, shapes: Shapes): readonly string[] =>
  target === allLinear ? allLinearModules(shapes) : [...adaptableModules(shapes).keys()].filter(matchesPath(target))

const optionIssues = (options: LoraOptions, shapes: Shapes): readonly Issue[] => {
  const { rank, alpha, dropout = 0, targets, useDora = false } = options
  const names = lastNames([...adaptableModules(shapes).keys()]).join(', ')
  const plain = new Set(linearLayers(shapes).keys())
  const unfit = useDora ? targets.flatMap((target) => matchedModules(target, shapes)).find((module) => !plain.has(module)) : undefined // biome-ignore format: one line
  return [
    ...(Number.isInteger(rank) && rank >= 1 ? [] : [issue('LoraRank', `LoRA: the rank must be an integer of 1 or more, got ${rank}`)]), // biome-ignore format: one line
    ...(alpha > 0 ? [] : [issue('LoraAlpha', `LoRA: alpha must be above 0, got ${alpha}`)]),
    ...(dropout >= 0 && dropout < 1 ? [] : [issue('LoraDropout', `LoRA: the dropout must be at least 0 and below 1, got ${dropout}`)]), // biome-ignore format: one line
    ...(targets.length > 0 ? [] : [issue('LoraTarget', 'LoRA: targets is empty; name at least one linear layer')]),
    ...(unfit === undefined ? [] : [issue('LoraTarget', `LoRA: DoRA needs linear layers, and ${unfit} is none; leave it out or turn DoRA off`, { target: unfit })]), // biome-ignore format: one line
    ...targets.flatMap((target) =>
      matchedModules(target, shapes).length > 0
        ? []
        : [issue('LoraTarget', `LoRA: no linear layer matches ${target}; the model has ${names}`, { target })]
    )
  ]
}

const lastNames = (modules: readonly string[]): readonly string[] => [...new Set(modules.map((path) => path.split('.').at(-1)!))]

/** The modules that the options target. Errors: every invalid option. */
export const targetModules = (shapes: Shapes, options: LoraOptions): E.Either<Issues, readonly string[]> =>
  whenValid(optionIssues(options, shapes), () => {
    const matched = new Set(options.targets.flatMap((target) => matchedModules(target, shapes)))
    return [...adaptableModules(shapes).keys()].filter((module) => matched.has(module))
  })
