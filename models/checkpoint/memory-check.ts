import { type Issue, issue } from '../../lib/error.js'
import { type AvailableMemory, availableMemory } from '../../lib/memory.js'
import type { Module } from '../../lib/module.js'
import { declarations } from '../../lib/params.js'
import { keepsPacked, rowWords } from '../../lib/quantization/formats.js'
import { sizeOf } from '../../lib/shape.js'
import type { PrecisionOptions } from '../quantization/precision.js'
import { isPacked, splitForm } from '../quantization/quantized-keys.js'
import { type FormOptions, type Forms, formsOf } from '../quantization/weight-formats.js'
import type { Planned } from './layout.js'

export interface MemoryOptions {
  /** Whether a model is refused, before any weight is read, that the memory at hand has no room for; true unless given. */
  readonly checkMemory?: boolean | undefined
}

/** Precisions from the finest to the smallest. */
export const precisions = [
  { name: 'float32', options: { dtype: 'float32' } },
  { name: 'bfloat16', options: { dtype: 'bfloat16' } },
  { name: 'int8', options: { quantize: 'int8' } },
  { name: '4bit', options: { quantize: '4bit' } }
] as const satisfies ReadonlyArray<{ readonly name: string; readonly options: PrecisionOptions }>

/** Bytes that a module's weights take in memory, in the forms given and those that they are stored in, if the engine keeps them packed. */
export const weightBytes = (module: Module, plan: readonly Planned[], forms: Forms, packed: boolean, prefix = ''): number => {
  const stored = new Map(plan.map((planned) => [splitForm(planned.key).path, planned]))
  const bytes = declarations(module).map(([path, { shape }]) => {
    const planned = stored.get(prefix + path)
    const form = planned && packed ? (splitForm(planned.key).form ?? forms(planned)) : undefined
    return 4 * (form ? shape[0]! * rowWords(form, shape[1]!) : sizeOf(shape))
  })
  return bytes.reduce((sum, each) => sum + each, 0)
}

/** What a model takes, at each precision that it can have: a packed one has its own alone. */
export const needs = (module: Module, plan: readonly Planned[], packed: boolean, prefix = ''): readonly Need[] =>
  (isPacked(plan) ? [{ name: 'packed', options: {} }] : precisions).map(({ name, options }) => ({
    name,
    bytes: weightBytes(module, plan, formsOf(module, plan, options, prefix), packed, prefix)
  }))

/** A precision, and the bytes of the weights in it. */
export interface Need {
  readonly name: string
  readonly bytes: number
}

/**
 * Bytes that a process takes beside the weights: Node, TensorFlow and its kernels, a tile on its way through the tower, a prompt on
 * its way through the decoder. CONTRIBUTING has the measurement.
 */
export const workBytes = 0.8e9

export const inGigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`

const typed = (name: string): string => `--${name.includes('bit') || name === 'int8' ? 'quantize' : 'dtype'} ${name}`

/** The sentence that tells that memory is short, and what would fit. */
const shortage = (weights: number, offers: readonly Need[], room: number): string => {
  const smaller = offers.filter(({ bytes }) => bytes < weights)
  const fitting = smaller.filter(({ bytes }) => bytes + workBytes <= room)
  const each = (needs: readonly Need[]) =>
    needs.map(({ name, bytes }) => `${typed(name)} needs ${inGigabytes(bytes + workBytes)}`).join(', ')
  const last = smaller.at(-1)
  const advice = fitting.length > 0 ? each(fitting) : last ? `nothing fits, for ${each([last])}` : 'a smaller model is needed'
  const need = `${inGigabytes(weights)} of weights and about ${inGigabytes(workBytes)} to work in`
  return `it needs ${inGigabytes(weights + workBytes)} of memory (${need}), of which ${inGigabytes(room)} are available: ${advice}`
}

/**
 * What keeps a model from being loaded for want of memory, and what would be a warning: where the system may have more than it
 * tells, or would swap. `undefined` where there is room.
 */
export const memoryIssue = (
  weights: number,
  offers: readonly Need[],
  { bytes, most, sure }: AvailableMemory
): { readonly issue: Issue; readonly isSure: boolean } | undefined => {
  if (weights + workBytes <= bytes) return undefined
  const isSure = sure && weights + workBytes > most
  const way = isSure ? '; --force (checkMemory: false) tries it all the same' : ''
  const message = `${shortage(weights, offers, bytes)}${way}`
  return { issue: issue('MemoryShort', message, { expected: weights + workBytes, actual: bytes }), isSure }
}

/** Looks whether there is room before weights are read: an error where there is none, a line on standard error where it is unsure. */
export const checkMemory = async (
  module: Module,
  plan: readonly Planned[],
  { checkMemory: checked = true, ...options }: MemoryOptions & FormOptions,
  prefix = ''
): Promise<Issue | undefined> => {
  if (!checked) return undefined
  const packed = keepsPacked()
  const weights = weightBytes(module, plan, formsOf(module, plan, options, prefix), packed, prefix)
  const found = memoryIssue(weights, needs(module, plan, packed, prefix), await availableMemory())
  if (found && !found.isSure) process.stderr.write(`internvl: ${found.issue.message}\n`)
  return found?.isSure ? found.issue : undefined
}
