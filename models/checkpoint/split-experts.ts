import { dtypeBytes } from '../../lib/dtype.js'
import { stackWeights } from '../../lib/nn/fusion/stacked-experts.js'
import { hasKernel } from '../../lib/ops/kernel.js'
import { formatOf, type QuantizedWeight, type StoredWeight } from '../../lib/quantization/formats.js'
import type { tf } from '../../lib/tf.js'
import type { Planned } from './fuse.js'

/** Key of a projection of all experts of a layer: the prefix and the name of the projection. */
const stackedKey = /^(.*\.mlp\.experts)\.(gate_up_proj|down_proj)$/

/** Rows `[from, to)` of the matrix of expert `e`, from the stacked tensor `[E, rows, columns]`. */
const slice = (all: Planned, key: string, e: number, from: number, to: number): Planned => {
  const [, rows, columns] = all.shape as readonly [number, number, number]
  const row = columns * dtypeBytes[all.dtype]
  const [{ source, begin }] = all.parts as readonly [Planned['parts'][number]]
  const at = begin + e * rows * row
  return { key, dtype: all.dtype, shape: [to - from, columns], parts: [{ source, begin: at + from * row, end: at + to * row }] }
}

const unstackTensor = (planned: Planned): readonly Planned[] => {
  const [, prefix, name] = stackedKey.exec(planned.key) ?? []
  if (!name || planned.shape.length !== 3 || planned.parts.length !== 1) return [planned]
  const [experts, rows] = planned.shape as readonly [number, number, number]
  const names = name === 'down_proj' ? ['down_proj'] : ['gate_proj', 'up_proj']
  const size = rows / names.length
  if (!Number.isInteger(size)) return [planned]
  return Array.from({ length: experts }, (_, e) =>
    names.map((part, i) => slice(planned, `${prefix}.${e}.${part}.weight`, e, i * size, (i + 1) * size))
  ).flat()
}

/**
 * Qwen3-MoE's experts as separate tensors, where a file stacks those of a layer: `gate_up_proj` `[E, 2I, D]`, gate first, and
 * `down_proj` `[E, D, I]`. Source: `Qwen3MoeExperts` (transformers 5.24), which has this layout in memory.
 */
export const unstackExperts = (planned: readonly Planned[]): readonly Planned[] => planned.flatMap(unstackTensor)

/** GPT-OSS's experts dequantized to bfloat16, where a file has MXFP4: `*_blocks` `[E, out, G, 16]` and `*_scales` `[E, out, G]`. */
export const dequantizeExperts = (planned: readonly Planned[]): readonly Planned[] => {
  const byKey = new Map(planned.map((tensor) => [tensor.key, tensor]))
  const partnerOf = ({ key }: Planned, from: string, to: string) =>
    key.endsWith(from) ? byKey.get(key.slice(0, -from.length) + to) : undefined
  return planned.flatMap((tensor) => {
    if (partnerOf(tensor, '_scales', '_blocks')) return []
    const scales = partnerOf(tensor, '_blocks', '_scales')
    const [experts, out, groups, bytes] = tensor.shape
    if (!scales || bytes !== 16 || `${scales.shape}` !== `${[experts, out, groups]}`) return [tensor]
    const [E, O, G] = scales.shape as [number, number, number]
    const parts = [...tensor.parts, ...scales.parts]
    return [{ key: tensor.key.replace(/_blocks$/, ''), dtype: 'BF16', shape: [E, 32 * G, O], parts, mxfp4: [E, O, G] }]
  })
}

/** Path of a projection of one expert: the prefix, the number of the expert, and the name of the projection. */
const expertPath = /^(.*\.experts)\.(\d+)\.(\w+\.weight)$/

/**
 * Loaded weights by path, those of the experts of a layer in one piece of memory, where the engine computes with chosen experts. Changes the map; its
 * tensors stay under their paths. For the time of the call the experts of one layer are in memory twice.
 */
export const stackExperts = (weights: Map<string, tf.Tensor | QuantizedWeight>): void => {
  if (!hasKernel('StackWeights')) return
  const groups = new Map<string, string[]>()
  for (const path of weights.keys()) {
    const [, prefix, , name] = expertPath.exec(path) ?? []
    if (name) groups.set(`${prefix}.${name}`, [...(groups.get(`${prefix}.${name}`) ?? []), path])
  }
  const numberOf = (path: string): number => Number(expertPath.exec(path)![2])
  for (const group of groups.values()) {
    const paths = group.sort((a, b) => numberOf(a) - numberOf(b))
    const stored = paths.map((path) => weights.get(path) as StoredWeight)
    const kinds = new Set(stored.map(formatOf).map(({ format, tensor }) => `${format} ${tensor.shape}`))
    if (kinds.size > 1) continue
    for (const [e, view] of stackWeights(stored).entries()) weights.set(paths[e]!, view)
  }
}
