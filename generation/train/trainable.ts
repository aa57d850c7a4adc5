import * as E from 'fp-ts/lib/Either.js'
import { type Fault, type Faults, fault, unless } from '../../lib/fault.js'
import { namedParameters, type Partial, partition } from '../../lib/params.js'
import { matchesPath } from '../../lib/path-pattern.js'
import type { InternVLParams } from '../../models/load.js'
import { addLora, isLoraPath } from '../../models/lora.js'
import type { TrainConfig } from './config.js'

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

/** Path of a weight as it was before LoRA stood beside it. */
const plain = (path: string): string => path.replace(/\.weight\.base$/, '.weight')

const isConstant = (path: string): boolean => /\.weight\.(scaling|dropout)$/.test(path)

/** Patterns that name nothing, with what there is to name. */
const unmatched = (setting: string, patterns: readonly string[], paths: readonly string[]): readonly Fault[] => {
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
      fault('Pattern', `${setting}: no parameter matches ${pattern}; the parts are ${parts.join(', ')}`, { pattern })
    )
}

const withLora = (params: InternVLParams, c: Patterns): E.Either<Faults, InternVLParams> => {
  const rank = c['lora.rank']
  if (rank === null) return E.right(params)
  const options = { alpha: c['lora.alpha'] ?? 2 * rank, dropout: c['lora.dropout'], targets: c['lora.targets'], seed: c.seed }
  return addLora(params, { rank, ...options })
}

/**
 * Splits a model by a run's patterns, LoRA added where it is wanted. Faults: patterns that match nothing, all of them; LoRA's; a
 * choice that leaves nothing to train.
 */
export const trainable = (params: InternVLParams, c: Patterns): E.Either<Faults, Trainable> => {
  const paths = namedParameters(params).map(([path]) => path)
  const [only, freeze] = [c['train.only'], c['train.freeze']]
  const faults = [...unmatched('train.only', only ?? [], paths), ...unmatched('train.freeze', freeze, paths)]
  const tree = withLora(params, c)
  if (E.isLeft(tree)) return E.mapLeft((found: Faults): Faults => [found[0], ...found.slice(1), ...faults])(tree)
  const wanted = (path: string): boolean =>
    isLoraPath(path) || (only ? only.some((pattern) => covers(pattern)(path)) : c['lora.rank'] === null)
  const chosen = (path: string): boolean =>
    !isConstant(path) && wanted(plain(path)) && !freeze.some((pattern) => covers(pattern)(plain(path)))
  const [trained, frozen] = partition(chosen)(tree.right)
  const none =
    namedParameters(trained).length === 0 ? [fault('NothingTrained', 'train: these patterns leave nothing to train')] : []
  return unless([...faults, ...none], () => ({ trained, frozen }))
}
