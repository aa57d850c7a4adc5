import { tidyDataSync } from '../../lib/data-sync.js'
import type { Module } from '../../lib/module.js'
import { declarations, namedParameters, type StateDict } from '../../lib/params.js'
import {
  type BlockFormat,
  dequantize,
  isHalfFormat,
  packedRowLength,
  type QuantizationFormat,
  quantize,
  type StoredWeight
} from '../../lib/quantization/formats.js'
import { quantizeCalibrated } from '../../lib/quantization/gptq.js'
import { tf } from '../../lib/tf.js'
import { partOfPath } from '../families.js'
import { inputMoments } from './input-moments.js'
import { formatsByKey, type PrecisionOptions, precisionOf, precisionPartOf } from './precision.js'
import { splitHalf } from './quantized-keys.js'
import { quantizableSizes } from './weight-formats.js'

export interface CalibrationOptions extends Pick<PrecisionOptions, 'quantize'> {
  /** Token ids of texts like those that the model will read, a forward each. */
  readonly windows: readonly (readonly number[])[]
  /** Bytes of moments that are collected in one pass over the windows; more bytes need fewer passes. Default: 1 GiB. */
  readonly momentBytes?: number
  /** Called with the share of the work that is done, from 0 to 1. */
  readonly onProgress?: (share: number) => void
}

/** A weight `[N, K]` to quantize, with the path of the module that has its inputs: its layer, or the norm before the head. */
interface Target {
  readonly path: string
  readonly inputsAt: string
  readonly format: QuantizationFormat
  readonly shape: readonly [N: number, K: number]
}

/** The weight of the norm before the head. */
const finalNorm = /language_model(\.model)?\.norm\.weight$/

const isBlockFormat = (format: QuantizationFormat): format is BlockFormat => !isHalfFormat(format)

/** The targets in groups of consecutive layers whose moments need at most `bytes`; a layer that needs more is a group of its own. */
const passesOf = (targets: readonly Target[], bytes: number): readonly (readonly Target[])[] => {
  const passes: Target[][] = []
  let free = 0
  for (const target of targets) {
    const size = 4 * target.shape[1] ** 2
    free -= size
    if (free < 0 || passes.length === 0) {
      passes.push([])
      free = bytes - size
    }
    passes.at(-1)!.push(target)
  }
  return passes
}

/**
 * The parameters of a model with its weights quantized, as a flat record under the keys of a quantized folder. Weights of the decoder's
 * linear layers and of the head are rounded so that their outputs change least for inputs like those of `windows` (`quantizeCalibrated`);
 * all others, such as those of the vision tower and of embeddings that are not the head, to the nearest level. The model computes in the
 * precision of `params`. The caller owns the tensors that are not in `params`.
 */
export const calibrateWeights = async (
  module: Module,
  params: unknown,
  { quantize: asked, windows, momentBytes = 2 ** 30, onProgress = () => undefined }: CalibrationOptions
): Promise<StateDict> => {
  const formatOf = formatsByKey(precisionOf({ quantize: asked }), quantizableSizes(module))
  const shapes = new Map(declarations(module).map(([path, { shape }]) => [path, shape]))
  const stored = new Map(namedParameters(params).map(([key, tensor]) => [splitHalf(key).path, { key, tensor }]))
  const norm = [...shapes.keys()].find((path) => finalNorm.test(path))?.replace(/\.weight$/, '')
  const hasSeparateHead = [...shapes.keys()].some((path) => partOfPath(path) === 'head')
  const targets = [...stored].flatMap(([path]): readonly Target[] => {
    const [format, shape] = [formatOf(path, 'F32'), shapes.get(path)]
    const isHead = norm !== undefined && precisionPartOf(path, hasSeparateHead) === 'head'
    const inputsAt = isHead ? norm : path.replace(/\.weight$/, '')
    return format && shape?.length === 2 ? [{ path, inputsAt, format, shape: shape as [number, number] }] : []
  })
  const isCalibrated = ({ inputsAt, format }: Target): boolean =>
    isBlockFormat(format) && /language_model/.test(inputsAt) && (inputsAt === norm || /(^|\.)layers\.\d+\./.test(inputsAt))
  const result: Record<string, tf.Tensor> = {}
  const weightOf = ({ path, shape }: Target): tf.Tensor2D => {
    const { key, tensor } = stored.get(path)!
    const { half } = splitHalf(key)
    return dequantize((half ? { [half]: tensor } : tensor) as StoredWeight, shape[1])
  }
  const plain = (target: Target): void => {
    const weight = weightOf(target)
    const packed = Object.values(quantize(target.format, weight))[0] as tf.Tensor
    result[`${target.path}.${target.format}`] = packed
    if (weight !== stored.get(target.path)!.tensor) weight.dispose()
  }
  const calibrated = (target: Target, moments: tf.Tensor2D): void => {
    const { path, format, shape: [N, K] } = target // biome-ignore format: one line
    const weights = tidyDataSync(() => weightOf(target).clone()) as Float32Array
    const rows = quantizeCalibrated(format as BlockFormat, weights, moments.dataSync() as Float32Array, K)
    result[`${path}.${format}`] = tf.tensor2d(rows, [N, packedRowLength(format, K)], 'int32')
  }
  const passes = passesOf(targets.filter(isCalibrated), momentBytes)
  const steps = passes.length * windows.length + targets.length
  let done = 0
  const step = (): void => onProgress(++done / steps)
  for (const pass of passes) {
    const paths = pass.map(({ inputsAt }) => inputsAt)
    const [layers, outputsOf] = [paths.filter((path) => path !== norm), paths.filter((path) => path === norm)]
    const moments = await inputMoments({ module, params, layers, outputsOf, windows, onWindow: step })
    for (const target of pass) {
      const found = moments.of(target.inputsAt)
      if (found) calibrated(target, found)
      else plain(target)
      step()
      await new Promise(setImmediate)
    }
    moments.dispose()
  }
  for (const target of targets.filter((one) => !isCalibrated(one))) {
    plain(target)
    step()
  }
  for (const [path, { key, tensor }] of stored) if (!targets.some((target) => target.path === path)) result[key] = tensor
  return result
}
