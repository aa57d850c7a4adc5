import { type Issue, issue } from '../../lib/error.js'
import type { Module } from '../../lib/module.js'
import { declarations } from '../../lib/params.js'
import type { Form } from '../../lib/quantization/formats.js'
import { sizeOf } from '../../lib/shape.js'
import type { Described, Planned } from '../checkpoint/layout.js'
import { formsOfKeys, type PrecisionOptions, precisionOf, storedForm } from './precision.js'
import { isPacked, packedParts } from './quantized-keys.js'

/** The form in which each tensor shall lie in memory; `undefined` is float32, and what is packed already stays so. */
export type Forms = (tensor: Described) => Form | undefined

/** How many weights each tensor is that may be packed, by its key. */
export const packableSizes = (module: Module, prefix = ''): ReadonlyMap<string, number> =>
  new Map(declarations(module).flatMap(([key, { shape, packable }]) => (packable ? [[prefix + key, sizeOf(shape)]] : [])))

export interface FormOptions extends PrecisionOptions {
  /** Weights stay in bf16 where they are stored so. By default they do in a folder of packed weights, unless a dtype is given. */
  readonly asStored?: boolean | undefined
}

/** Whether what is not packed of a folder lies in memory as it is stored. */
export const keepsStored = (plan: readonly Planned[], { asStored, dtype, quantize }: FormOptions): boolean =>
  quantize === undefined && (asStored ?? (isPacked(plan) && dtype === undefined))

/** Forms of a module's weights: those that may be packed, as the precision of their part says. */
export const formsOf = (module: Module, plan: readonly Planned[], options: FormOptions, prefix = ''): Forms => {
  const packable = packableSizes(module, prefix)
  const formOf = formsOfKeys(precisionOf(options), packable)
  const asStored = keepsStored(plan, options)
  return ({ key, dtype }) => {
    if (!packable.has(key)) return undefined
    return asStored ? storedForm(dtype) : formOf(key, dtype)
  }
}

/** What keeps a precision from being had of a folder. */
export const precisionIssues = (plan: readonly Planned[], { quantize }: Pick<PrecisionOptions, 'quantize'>): readonly Issue[] => {
  if (quantize === undefined || !isPacked(plan)) return []
  const parts = Object.entries(packedParts(plan.map(({ key }) => key))).map((each) => each.join(' in '))
  const message = `its weights are packed already (${parts.join(', ')}): leave quantize out, or quantize the folder that it was made of`
  return [issue('PackedAlready', message)]
}
