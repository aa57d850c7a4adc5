import { type Fault, fault } from '../lib/fault.js'
import type { Module } from '../lib/module.js'
import type { Form } from '../lib/packed.js'
import { declarations } from '../lib/params.js'
import type { Described, Planned } from './checkpoint.js'
import { isPacked, packedParts } from './packed-keys.js'
import { formsOfKeys, type PrecisionOptions, precisionOf } from './precision.js'

/** The form in which each tensor shall lie in memory; `undefined` is float32, and what is packed already stays so. */
export type Forms = (tensor: Described) => Form | undefined

/**
 * Forms of a module's weights: those that may be packed, as the precision of their part says. In a folder of packed weights the
 * others stay in bf16 where they are stored so, unless a dtype is given.
 */
export const formsOf = (module: Module, plan: readonly Planned[], options: PrecisionOptions, prefix = ''): Forms => {
  const packable = new Set(declarations(module).flatMap(([key, param]) => (param.packable ? [prefix + key] : [])))
  const formOf = formsOfKeys(precisionOf(options), packable)
  const asStored = isPacked(plan) && options.dtype === undefined
  return ({ key, dtype }) => {
    if (!packable.has(key)) return undefined
    return asStored ? (dtype === 'BF16' ? 'bf16' : undefined) : formOf(key)
  }
}

/** What keeps a precision from being had of a folder. */
export const precisionFaults = (plan: readonly Planned[], { quantize }: Pick<PrecisionOptions, 'quantize'>): readonly Fault[] => {
  if (quantize === undefined || !isPacked(plan)) return []
  const parts = Object.entries(packedParts(plan.map(({ key }) => key))).map((each) => each.join(' in '))
  const message = `its weights are packed already (${parts.join(', ')}): leave quantize out, or quantize the folder that it was made of`
  return [fault('PackedAlready', message)]
}
