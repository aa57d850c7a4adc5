import * as E from 'fp-ts/lib/Either.js'
import { sizeOf } from '../../lib/shape.js'
import { type Heads, type Layout, planFile } from '../checkpoint/layout.js'
import { layoutNames } from '../families.js'
import type { Shapes } from './lora-targets.js'

/** Rows `[from, to)` of a stored tensor that are rows of a tensor of the module tree, one after the other. */
export interface TreePart {
  readonly path: string
  readonly ranges: readonly (readonly [from: number, to: number])[]
}

/** A parameter of a model under the name of a layout: its shape, and the tensors of the module tree that it fuses. */
export interface NamedTensor {
  readonly shape: readonly number[]
  readonly parts: readonly TreePart[]
}

/** The parameters of a model under the names of one layout. */
export type Names = ReadonlyMap<string, NamedTensor>

/** PEFT wraps a part of a model, such as its decoder, as well as a whole one: the paths then begin within that part. */
const wrapped = ['', 'model.', 'language_model.', 'model.language_model.', 'vision_model.', 'model.vision_tower.']

const noHeads: Heads = { numAttentionHeads: 0, numKeyValueHeads: 0, headDim: 0 }

/** The parameters under the names of a layout; undefined if the layout has no names for the model. */
const namesOf = (layout: Layout, shapes: Shapes, heads: Heads): Names | undefined => {
  const tree = [...shapes].map(([key, shape]) => ({ key, dtype: 'F32' as const, shape }))
  const planned = planFile(layout, tree, heads)
  if (E.isLeft(planned)) return undefined
  return new Map(
    planned.right.map(({ key, shape, parts }): readonly [string, NamedTensor] => {
      const rowBytes = 4 * sizeOf(shape.slice(1))
      const ranges = new Map<string, (readonly [number, number])[]>()
      let row = 0
      for (const { source, begin, end } of parts) {
        const to = row + (end - begin) / rowBytes
        ranges.set(source, [...(ranges.get(source) ?? []), [row, to]])
        row = to
      }
      return [key, { shape, parts: [...ranges].map(([path, found]) => ({ path, ranges: found })) }]
    })
  )
}

/** The names that begin with a prefix, without the prefix. */
const within = (names: Names, prefix: string): Names =>
  prefix === ''
    ? names
    : new Map([...names].flatMap(([name, tensor]) => (name.startsWith(prefix) ? [[name.slice(prefix.length), tensor]] : [])))

/**
 * The names that an adapter uses: of all layouts and wrapped parts, those that know most of its modules and parameters. `knows` says
 * whether names have an item.
 */
export const namesFor = <A>(
  items: readonly A[],
  knows: (names: Names, item: A) => boolean,
  shapes: Shapes,
  heads?: Heads
): Names => {
  let [best, most]: [Names, number] = [namesOf('hf', shapes, heads ?? noHeads) ?? new Map(), -1]
  for (const layout of layoutNames) {
    const names = namesOf(layout, shapes, heads ?? noHeads)
    if (!names) continue
    for (const prefix of wrapped) {
      const candidate = within(names, prefix)
      const known = items.filter((item) => knows(candidate, item)).length
      if (known > most) [best, most] = [candidate, known]
      if (known === items.length) return candidate
    }
  }
  return best
}
