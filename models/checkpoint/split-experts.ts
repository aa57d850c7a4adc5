import { dtypeBytes } from '../../lib/dtype.js'
import type { TextConfig } from '../config/config-types.js'
import type { Planned } from './fuse.js'

/** Key of a projection of all experts of a layer, up to the projection's name. */
const stacked = /^(.*\.mlp\.experts)\.(gate_up_proj|down_proj)$/

/** One expert's matrix `[from, to)` of the rows `[E, rows, columns]` of all. */
const slice = (all: Planned, key: string, e: number, from: number, to: number): Planned => {
  const [, rows, columns] = all.shape as readonly [number, number, number]
  const row = columns * dtypeBytes[all.dtype]
  const [{ source, begin }] = all.parts as readonly [Planned['parts'][number]]
  const at = begin + e * rows * row
  return { key, dtype: all.dtype, shape: [to - from, columns], parts: [{ source, begin: at + from * row, end: at + to * row }] }
}

/**
 * Qwen3-MoE's experts one by one, where a file has all of a layer in one tensor: `gate_up_proj` `[E, 2I, D]`, gate first, and
 * `down_proj` `[E, D, I]`. Source: `Qwen3MoeExperts` (transformers 5.23), whose layout in memory this is.
 */
const unstack = (planned: Planned): readonly Planned[] => {
  const [, prefix, name] = stacked.exec(planned.key) ?? []
  if (!name || planned.shape.length !== 3 || planned.parts.length !== 1) return [planned]
  const [experts, rows] = planned.shape as readonly [number, number, number]
  const names = name === 'down_proj' ? ['down_proj'] : ['gate_proj', 'up_proj']
  const size = rows / names.length
  if (!Number.isInteger(size)) return [planned]
  return Array.from({ length: experts }, (_, e) =>
    names.map((part, i) => slice(planned, `${prefix}.${e}.${part}.weight`, e, i * size, (i + 1) * size))
  ).flat()
}

/** GPT-OSS's experts as numbers, where a file has them as MXFP4: `*_blocks` `[E, out, G, 16]` and `*_scales` `[E, out, G]`. */
const unpack = (planned: readonly Planned[]): readonly Planned[] => {
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

/** Experts as the module tree has them, whichever way a file stores them. */
export const unpackExperts = (planned: readonly Planned[], decoder: TextConfig['modelType'] | undefined): readonly Planned[] =>
  decoder === 'qwen3_moe' ? planned.flatMap(unstack) : decoder === 'gpt_oss' ? unpack(planned) : planned
