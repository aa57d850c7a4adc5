import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { type Issue, type Issues, issue } from '../../lib/error.js'
import { type AvailableMemory, availableMemory } from '../../lib/memory.js'
import type { Module } from '../../lib/module.js'
import { declarations } from '../../lib/params.js'
import { keepsQuantized, packedRowLength, type QuantizationFormat } from '../../lib/quantization/formats.js'
import { sizeOf } from '../../lib/shape.js'
import type { PrecisionOptions } from '../quantization/precision.js'
import { isQuantized, splitFormat } from '../quantization/quantized-keys.js'
import { type WeightFormatOptions, type WeightFormats, weightFormats } from '../quantization/weight-formats.js'
import type { Planned } from './layout.js'

export interface MemoryOptions {
  /** Whether a model that the available memory cannot hold is refused before any weight is read; true unless given. */
  readonly checkMemory?: boolean | undefined
}

/** All precisions, by decreasing memory. */
export const precisions = [
  { name: 'float32', options: { dtype: 'float32' } },
  { name: 'bfloat16', options: { dtype: 'bfloat16' } },
  { name: 'int8', options: { quantize: 'int8' } },
  { name: 'int4', options: { quantize: 'int4' } }
] as const satisfies ReadonlyArray<{ readonly name: string; readonly options: PrecisionOptions }>

/** Whether weights of a format stay in it, or are dequantized to float32. */
type IsKept = (format: QuantizationFormat) => boolean

/** Bytes of each of a module's weights in memory, by path, in its stored or the given format if that is kept, else in float32. */
export const bytesByPath = (
  module: Module,
  plan: readonly Planned[],
  formatOf: WeightFormats,
  isKept: IsKept,
  prefix = ''
): ReadonlyArray<readonly [path: string, bytes: number]> => {
  const stored = new Map(plan.map((planned) => [splitFormat(planned.key).path, planned]))
  return declarations(module).map(([path, { shape }]) => {
    const planned = stored.get(prefix + path)
    const format = planned && (splitFormat(planned.key).format ?? formatOf(planned))
    return [path, 4 * (format && isKept(format) ? shape[0]! * packedRowLength(format, shape[1]!) : sizeOf(shape))]
  })
}

/** The sum of `bytesByPath`. */
export const weightBytes = (...given: Parameters<typeof bytesByPath>): number =>
  bytesByPath(...given).reduce((sum, [, bytes]) => sum + bytes, 0)

/** Bytes of the weights in a precision. */
export interface MemoryNeed {
  readonly name: string
  readonly bytes: number
}

/** The precisions that a folder can be loaded in; a quantized folder has one. */
export const precisionsOf = (
  plan: readonly Planned[]
): ReadonlyArray<{ readonly name: string; readonly options: PrecisionOptions }> =>
  isQuantized(plan) ? [{ name: 'quantized', options: {} }] : precisions

/** Bytes of the weights in each precision that a folder can be loaded in; a quantized folder has one. */
export const memoryNeeds = (module: Module, plan: readonly Planned[], isKept: IsKept, prefix = ''): readonly MemoryNeed[] =>
  precisionsOf(plan).map(({ name, options }) => ({
    name,
    bytes: weightBytes(module, plan, weightFormats(module, plan, options, prefix), isKept, prefix)
  }))

/**
 * Bytes that a process needs beside the weights: Node, TensorFlow and its kernels, the activations of a tile in the vision tower
 * and of a prompt in the decoder.
 */
export const workingBytes = 0.8e9

const inGigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`

const optionOf = (name: string): string => `--${name.startsWith('int') ? 'quantize' : 'dtype'} ${name}`

/** The sentence that states the memory shortage and the precisions that would fit. */
const shortage = (weights: number, needs: readonly MemoryNeed[], available: number): string => {
  const smaller = needs.filter(({ bytes }) => bytes < weights)
  const fitting = smaller.filter(({ bytes }) => bytes + workingBytes <= available)
  const list = (precisionNeeds: readonly MemoryNeed[]) =>
    precisionNeeds.map(({ name, bytes }) => `${optionOf(name)} needs ${inGigabytes(bytes + workingBytes)}`).join(', ')
  const smallest = smaller.at(-1)
  const advice = fitting.length > 0 ? list(fitting) : smallest ? `nothing fits, for ${list([smallest])}` : 'use a smaller model'
  const parts = `${inGigabytes(weights)} of weights and about ${inGigabytes(workingBytes)} of working memory`
  const total = inGigabytes(weights + workingBytes)
  return `the model needs ${total} of memory (${parts}), and ${inGigabytes(available)} are available: ${advice}`
}

/**
 * The issue of a model that the available memory cannot hold; undefined where it can. `isSure` is false where the system may have
 * more memory than it reports, or would swap: then the issue is only a warning.
 */
export const memoryIssue = (
  weights: number,
  needs: readonly MemoryNeed[],
  { bytes, bytesWithSwap, exact }: AvailableMemory
): { readonly issue: Issue; readonly isSure: boolean } | undefined => {
  if (weights + workingBytes <= bytes) return undefined
  const isSure = exact && weights + workingBytes > bytesWithSwap
  const override = isSure ? '; --force (checkMemory: false) loads the model anyway' : ''
  const message = `${shortage(weights, needs, bytes)}${override}`
  return { issue: issue('MemoryShort', message, { expected: weights + workingBytes, actual: bytes }), isSure }
}

/** Checks the memory before weights are read. Error: `MemoryShort`; where the shortage is not sure, a line on standard error. */
export const checkMemory =
  (
    module: Module,
    plan: readonly Planned[],
    { checkMemory: isChecked = true, ...options }: MemoryOptions & WeightFormatOptions,
    prefix = ''
  ): TaskEither<Issues, void> =>
  async () => {
    if (!isChecked) return E.right(undefined)
    const weights = weightBytes(module, plan, weightFormats(module, plan, options, prefix), keepsQuantized, prefix)
    const found = memoryIssue(weights, memoryNeeds(module, plan, keepsQuantized, prefix), await availableMemory())
    if (found && !found.isSure) process.stderr.write(`internvl: ${found.issue.message}\n`)
    return found?.isSure ? E.left([found.issue]) : E.right(undefined)
  }
