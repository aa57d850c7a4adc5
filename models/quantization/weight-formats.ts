import { type Issue, issue } from '../../lib/error.js'
import type { Module } from '../../lib/module.js'
import { declarations } from '../../lib/params.js'
import type { QuantizationFormat } from '../../lib/quantization/formats.js'
import { sizeOf } from '../../lib/shape.js'
import type { Described, Planned } from '../checkpoint/fuse.js'
import { formatsByKey, type PrecisionOptions, precisionOf, storedFormat } from './precision.js'
import { isQuantized, quantizationOfParts } from './quantized-keys.js'

/** The format of each tensor in memory. `undefined` is float32; a tensor that is stored quantized keeps its format. */
export type WeightFormats = (tensor: Described) => QuantizationFormat | undefined

/** Number of elements of each quantizable weight, by its key. */
export const quantizableSizes = (module: Module, prefix = ''): ReadonlyMap<string, number> =>
  new Map(declarations(module).flatMap(([key, { shape, quantizable }]) => (quantizable ? [[prefix + key, sizeOf(shape)]] : [])))

export interface WeightFormatOptions extends PrecisionOptions {
  /** Keeps weights in bfloat16 that are stored in bfloat16. The default for a quantized folder, unless a dtype is given. */
  readonly asStored?: boolean | undefined
}

/** Whether the weights of a folder that are not quantized have their stored type in memory. */
export const keepsStoredType = (plan: readonly Planned[], { asStored, dtype, quantize }: WeightFormatOptions): boolean =>
  quantize === undefined && (asStored ?? (isQuantized(plan) && dtype === undefined))

/** Formats of a module's weights: the quantizable ones in the precision of their part, all others in float32. */
export const weightFormats = (
  module: Module,
  plan: readonly Planned[],
  options: WeightFormatOptions,
  prefix = ''
): WeightFormats => {
  const sizes = quantizableSizes(module, prefix)
  const formatOf = formatsByKey(precisionOf(options), sizes)
  const asStored = keepsStoredType(plan, options)
  return ({ key, dtype }) => {
    if (!sizes.has(key)) return undefined
    return asStored ? storedFormat(dtype) : formatOf(key, dtype)
  }
}

/** The error of quantizing a folder whose weights are quantized already. */
export const precisionIssues = (plan: readonly Planned[], { quantize }: Pick<PrecisionOptions, 'quantize'>): readonly Issue[] => {
  if (quantize === undefined || !isQuantized(plan)) return []
  const parts = Object.entries(quantizationOfParts(plan.map(({ key }) => key))).map(([part, name]) => `${part} in ${name}`)
  const message = `its weights are quantized already (${parts.join(', ')}): leave quantize out, or quantize the original folder`
  return [issue('QuantizedAlready', message)]
}
