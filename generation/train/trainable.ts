import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import { type Issue, type Issues, issue, whenValid } from '../../lib/error.js'
import { type PartialParams, partition } from '../../lib/params.js'
import { matchesPath } from '../../lib/tap/path-pattern.js'
import type { InternVLParams } from '../../models/checkpoint/load-model.js'
import { partOfPath } from '../../models/families.js'
import {
  addLora,
  decoderTargets,
  isLoraPath,
  type LoraOptions,
  pathWithoutLora,
  type Shapes,
  shapesWithoutLora,
  targetModules
} from '../../models/lora/lora.js'
import type { TrainConfig } from './train-config.js'

/** The parameters of a model in two partial trees. `combine(trained, frozen)` is the tree of the model. */
export interface Trainable {
  readonly trained: PartialParams<InternVLParams>
  readonly frozen: PartialParams<InternVLParams>
}

type Patterns = Pick<TrainConfig, 'train.only' | 'train.freeze' | Extract<keyof TrainConfig, `lora.${string}`> | 'seed'>

/** Whether a pattern matches a parameter, or a module that contains the parameter. */
const covers = (pattern: string): ((path: string) => boolean) => {
  const matches = matchesPath(pattern)
  return (path) => path.split('.').some((_, i, names) => matches(names.slice(0, i + 1).join('.')))
}

/**
 * Whether a parameter belongs to the router of a Flash model, which is never trained: training shows every tile with all its tokens,
 * so that no gradient reaches the router.
 */
const isRouterPath = (path: string): boolean => ['pooling', 'gating', 'quarterProjector'].includes(partOfPath(path) ?? '')

/** The top-level part of a parameter: `model.vision_tower`, `lm_head`. */
const topLevel = (path: string): string =>
  path
    .split('.')
    .slice(0, path.startsWith('model.') ? 2 : 1)
    .join('.')

/** One issue for each pattern that matches no parameter, with the names of the parts of the model. */
const unmatchedPatterns = (setting: string, patterns: readonly string[], paths: readonly string[]): readonly Issue[] => {
  const parts = [...new Set(paths.map(topLevel))].join(', ')
  return patterns
    .filter((pattern) => !paths.some(covers(pattern)))
    .map((pattern) => issue('Pattern', `${setting}: no parameter matches ${pattern}; the parts are ${parts}`, { pattern }))
}

/** Options of LoRA for a model with these parameters; by default for every linear layer of the decoder, and its experts. */
const loraOptions = (c: Patterns, shapes: Shapes): LoraOptions | undefined => {
  const rank = c['lora.rank']
  if (rank === null) return undefined
  const targets = c['lora.targetModules'] ?? decoderTargets(shapes)
  const { 'lora.useDora': useDora, 'lora.useRslora': useRslora, 'lora.dropout': dropout, seed } = c
  return { rank, alpha: c['lora.alpha'] ?? 2 * rank, dropout, targets, seed, useDora, useRslora }
}

/** Factor of the LoRA update: alpha / rank, or alpha / √rank of rsLoRA. */
export const loraScaling = (c: Patterns): number => {
  const rank = c['lora.rank'] ?? 1
  return (c['lora.alpha'] ?? 2 * rank) / (c['lora.useRslora'] ? Math.sqrt(rank) : rank)
}

/** Paths and shapes of the model after LoRA was added to these modules. */
const withLoraShapes = (shapes: Shapes, modules: readonly string[], { rank, useDora = false }: LoraOptions): Shapes => {
  const chosen = new Set(modules.flatMap((module) => [module, `${module}.weight`])) // stacked experts are parameters themselves
  return new Map(
    [...shapes].flatMap(([path, shape]): readonly (readonly [string, readonly number[]])[] => {
      if (!chosen.has(path)) return [[path, shape]]
      const [experts, rows, columns] = [shape.slice(0, -2), shape.at(-2)!, shape.at(-1)!]
      return [
        [`${path}.base`, shape],
        [`${path}.lora_A`, [...experts, rank, columns]],
        [`${path}.lora_B`, [...experts, rows, rank]],
        ...(useDora ? [[`${path}.lora_magnitude_vector`, [rows]] as const] : [])
      ]
    })
  )
}

/** Whether `lora.bias` trains a bias: all of the model, or those of modules with LoRA. */
const trainsBias = (c: Patterns, modules: readonly string[]): ((path: string) => boolean) => {
  const biases = new Set(modules.map((module) => `${module}.bias`))
  if (c['lora.rank'] === null || c['lora.bias'] === 'none') return () => false
  return c['lora.bias'] === 'all' ? (path) => path.endsWith('.bias') : (path) => biases.has(path)
}

/**
 * Paths and shapes of the parameters that these settings train, with the LoRA matrices. Errors: every pattern that matches nothing;
 * errors of LoRA; settings that leave no parameter to train.
 */
export const trainedShapes = (shapes: Shapes, c: Patterns): E.Either<Issues, Shapes> => {
  const [lora, paths] = [loraOptions(c, shapes), [...shapes.keys()]]
  const modules = lora ? targetModules(shapes, lora) : E.right<Issues, readonly string[]>([])
  const [only, freeze] = [c['train.only'], c['train.freeze']]
  const isBias = trainsBias(c, E.isRight(modules) ? modules.right : [])
  const isIncluded = (path: string): boolean =>
    isLoraPath(path) || isBias(path) || (only ? only.some((pattern) => covers(pattern)(path)) : c['lora.rank'] === null)
  const isFrozen = (path: string): boolean => isRouterPath(path) || freeze.some((pattern) => covers(pattern)(path))
  const all = lora && E.isRight(modules) ? withLoraShapes(shapes, modules.right, lora) : shapes
  const trained = new Map([...all].filter(([path]) => isIncluded(pathWithoutLora(path)) && !isFrozen(pathWithoutLora(path))))
  const issues = [
    ...(E.isLeft(modules) ? modules.left : []),
    ...unmatchedPatterns('train.only', only ?? [], paths),
    ...unmatchedPatterns('train.freeze', freeze, paths)
  ]
  const none = issue('NothingTrained', 'train: train.only and train.freeze leave no parameter to train')
  return whenValid(issues.length === 0 && trained.size === 0 ? [none] : issues, () => trained)
}

/** Splits the parameters into trained and frozen ones, with LoRA added where the settings ask for it. Errors: as `trainedShapes`. */
export const splitParameters = (params: InternVLParams, c: Patterns): E.Either<Issues, Trainable> =>
  pipe(
    E.Do,
    E.apS('shapes', trainedShapes(shapesWithoutLora(params), c)),
    E.bind('tree', () => {
      const lora = loraOptions(c, shapesWithoutLora(params))
      return lora ? addLora(params, lora) : E.right<Issues, InternVLParams>(params)
    }),
    E.map(({ shapes, tree }) => {
      const [trained, frozen] = partition((path) => shapes.has(path))(tree)
      return { trained, frozen }
    })
  )
