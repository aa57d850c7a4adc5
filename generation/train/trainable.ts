import * as E from 'fp-ts/lib/Either.js'
import { type Issue, type Issues, issue, whenValid } from '../../lib/error.js'
import { type Partial, partition } from '../../lib/params.js'
import { matchesPath } from '../../lib/path-pattern.js'
import type { InternVLParams } from '../../models/checkpoint/load-model.js'
import { addLora, isLoraPath, loraModules, plainPath, plainShapes, type Shapes } from '../../models/lora/lora.js'
import type { TrainConfig } from './train-config.js'

/** A model's parameters, in two: what is trained, and what stays. `combine(trained, frozen)` is the model's tree. */
export interface Trainable {
  readonly trained: Partial<InternVLParams>
  readonly frozen: Partial<InternVLParams>
}

type Patterns = Pick<
  TrainConfig,
  'train.only' | 'train.freeze' | 'lora.rank' | 'lora.alpha' | 'lora.dropout' | 'lora.targets' | 'seed'
>

/** Whether a pattern names a parameter, or a module that it is in. */
const covers = (pattern: string): ((path: string) => boolean) => {
  const matches = matchesPath(pattern)
  return (path) => path.split('.').some((_, i, names) => matches(names.slice(0, i + 1).join('.')))
}

/** Patterns that name nothing, with what there is to name. */
const unmatched = (setting: string, patterns: readonly string[], paths: readonly string[]): readonly Issue[] => {
  const parts = [
    ...new Set(
      paths.map((path) =>
        path
          .split('.')
          .slice(0, path.startsWith('model.') ? 2 : 1)
          .join('.')
      )
    )
  ]
  return patterns
    .filter((pattern) => !paths.some(covers(pattern)))
    .map((pattern) =>
      issue('Pattern', `${setting}: no parameter matches ${pattern}; the parts are ${parts.join(', ')}`, { pattern })
    )
}

const loraOptions = (c: Patterns) => {
  const rank = c['lora.rank']
  if (rank === null) return undefined
  return { rank, alpha: c['lora.alpha'] ?? 2 * rank, dropout: c['lora.dropout'], targets: c['lora.targets'], seed: c.seed }
}

/** By what the update of a run's LoRA is multiplied. */
export const loraScaling = (c: Patterns): number => {
  const { alpha, rank } = loraOptions(c) ?? { alpha: 1, rank: 1 }
  return alpha / rank
}

/** Paths and shapes as they are where LoRA stands beside the weights of these modules. */
const besideLora = (shapes: Shapes, modules: readonly string[], rank: number): Shapes => {
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
 * What a run's patterns train of a model with these parameters, LoRA among them. Errors: patterns that match nothing, all of them;
 * LoRA's; a choice that leaves nothing to train.
 */
export const trainedShapes = (shapes: Shapes, c: Patterns): E.Either<Issues, Shapes> => {
  const [lora, paths] = [loraOptions(c), [...shapes.keys()]]
  const modules = lora ? loraModules(shapes, lora) : E.right<Issues, readonly string[]>([])
  const [only, freeze] = [c['train.only'], c['train.freeze']]
  const wanted = (path: string): boolean =>
    isLoraPath(path) || (only ? only.some((pattern) => covers(pattern)(path)) : c['lora.rank'] === null)
  const chosen = (path: string): boolean => wanted(plainPath(path)) && !freeze.some((pattern) => covers(pattern)(plainPath(path)))
  const all = lora && E.isRight(modules) ? besideLora(shapes, modules.right, lora.rank) : shapes
  const trained = new Map([...all].filter(([path]) => chosen(path)))
  const issues = [
    ...(E.isLeft(modules) ? modules.left : []),
    ...unmatched('train.only', only ?? [], paths),
    ...unmatched('train.freeze', freeze, paths)
  ]
  const none = issue('NothingTrained', 'train: these patterns leave nothing to train')
  return whenValid(issues.length === 0 && trained.size === 0 ? [none] : issues, () => trained)
}

/** Splits a model by a run's patterns, LoRA added where it is wanted. Errors: as `trainedShapes`. */
export const trainable = (params: InternVLParams, c: Patterns): E.Either<Issues, Trainable> =>
  E.chain((shapes: Shapes) => {
    const lora = loraOptions(c)
    const tree = lora ? addLora(params, lora) : E.right<Issues, InternVLParams>(params)
    return E.map((whole: InternVLParams) => {
      const [trained, frozen] = partition((path) => shapes.has(path))(whole)
      return { trained, frozen }
    })(tree)
  })(trainedShapes(plainShapes(params), c))
