import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import { type Issue, type Issues, issue, whenValid } from '../../lib/error.js'
import { type PartialParams, partition } from '../../lib/params.js'
import { matchesPath } from '../../lib/path-pattern.js'
import type { InternVLParams } from '../../models/checkpoint/load-model.js'
import { partOfPath } from '../../models/families.js'
import { addLora, isLoraPath, pathWithoutLora, type Shapes, shapesWithoutLora, targetModules } from '../../models/lora/lora.js'
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

const loraOptions = (c: Patterns) => {
  const rank = c['lora.rank']
  if (rank === null) return undefined
  return { rank, alpha: c['lora.alpha'] ?? 2 * rank, dropout: c['lora.dropout'], targets: c['lora.targetModules'], seed: c.seed }
}

/** Factor of the LoRA update: alpha / rank. */
export const loraScaling = (c: Patterns): number => {
  const { alpha, rank } = loraOptions(c) ?? { alpha: 1, rank: 1 }
  return alpha / rank
}

/** Paths and shapes of the model after LoRA was added to these modules. */
const withLoraShapes = (shapes: Shapes, modules: readonly string[], rank: number): Shapes => {
  const chosen = new Set(modules.map((module) => `${module}.weight`))
  return new Map(
    [...shapes].flatMap(([path, shape]): readonly (readonly [string, readonly number[]])[] =>
      chosen.has(path)
        ? [[`${path}.base`, shape], [`${path}.lora_A`, [rank, shape[1]!]], [`${path}.lora_B`, [shape[0]!, rank]]]
        : [[path, shape]]
    )
  ) // biome-ignore format: one line
}

/**
 * Paths and shapes of the parameters that these settings train, with the LoRA matrices. Errors: every pattern that matches nothing;
 * errors of LoRA; settings that leave no parameter to train.
 */
export const trainedShapes = (shapes: Shapes, c: Patterns): E.Either<Issues, Shapes> => {
  const [lora, paths] = [loraOptions(c), [...shapes.keys()]]
  const modules = lora ? targetModules(shapes, lora) : E.right<Issues, readonly string[]>([])
  const [only, freeze] = [c['train.only'], c['train.freeze']]
  const isIncluded = (path: string): boolean =>
    isLoraPath(path) || (only ? only.some((pattern) => covers(pattern)(path)) : c['lora.rank'] === null)
  const isFrozen = (path: string): boolean => isRouterPath(path) || freeze.some((pattern) => covers(pattern)(path))
  const all = lora && E.isRight(modules) ? withLoraShapes(shapes, modules.right, lora.rank) : shapes
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
      const lora = loraOptions(c)
      return lora ? addLora(params, lora) : E.right<Issues, InternVLParams>(params)
    }),
    E.map(({ shapes, tree }) => {
      const [trained, frozen] = partition((path) => shapes.has(path))(tree)
      return { trained, frozen }
    })
  )
