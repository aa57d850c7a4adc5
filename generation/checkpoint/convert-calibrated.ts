import { InternVLError, issue } from '../../lib/error.js'
import { namedParameters } from '../../lib/params.js'
import type { Layout } from '../../models/checkpoint/layout.js'
import { calibrateWeights } from '../../models/quantization/calibrate.js'
import { precisionOf } from '../../models/quantization/precision.js'
import { isQuantized } from '../../models/quantization/quantized-keys.js'
import { load } from './load.js'
import { type ConvertOptions, checkTarget, save } from './save.js'

/** Tokens of one forward over the calibration text. */
const WINDOW = 512
/** Tokens of the text that are read; more change little. */
const MAX_TOKENS = 2 ** 15
const MIN_TOKENS = 256

export interface ConvertCalibratedOptions extends Pick<ConvertOptions, 'force' | 'shardBytes'> {
  /** Quantization of the weights, as `load` takes it. */
  readonly quantize: NonNullable<ConvertOptions['quantize']>
  /** A text like those that the model will read and write, of some thousand tokens; the first 32,768 tokens are used. */
  readonly text: string
  /** `hf` by default. */
  readonly layout?: Layout
  /** Called with the share of the work that is done, from 0 to 1. */
  readonly onProgress?: (share: number) => void
}

/** Token ids of the text in windows. */
const windowsOf = (ids: readonly number[]): readonly (readonly number[])[] => {
  if (ids.length < MIN_TOKENS) {
    const message = `calibration: the text has ${ids.length} tokens; use one of at least ${MIN_TOKENS}, better some thousand`
    throw new InternVLError([issue('CalibrationText', message, { expected: MIN_TOKENS, actual: ids.length })])
  }
  const used = ids.slice(0, MAX_TOKENS)
  return Array.from({ length: Math.ceil(used.length / WINDOW) }, (_, i) => used.slice(i * WINDOW, (i + 1) * WINDOW))
}

/**
 * Converts a checkpoint folder to a quantized one whose decoder loses less than with `convert`: the model reads a text, and its weights
 * are rounded so that the outputs for inputs like those change least. Unlike `convert`, it holds the whole model in memory, and needs
 * minutes. Throws an `InternVLError`.
 *
 * `await convertCalibrated('InternVL3-1B-hf', 'InternVL3-1B-int4', { quantize: 'int4', text })`
 */
export const convertCalibrated = async (from: string, to: string, options: ConvertCalibratedOptions): Promise<void> => {
  const { quantize, text, layout, shardBytes, force = false, onProgress } = options
  precisionOf({ quantize }) // throws for an unknown precision before any file is opened
  await checkTarget([from], to, force)
  const internvl = await load(from, { asStored: true })
  try {
    const { config, module, params, processor } = internvl
    if (isQuantized(namedParameters(params).map(([key]) => ({ key }))))
      throw new InternVLError([issue('QuantizedAlready', `${from}: its weights are quantized already; use the original folder`)])
    const windows = windowsOf(processor.tokenizer.encode(text, { addSpecialTokens: false }))
    const tensors = await calibrateWeights(module, params, { quantize, windows, ...(onProgress ? { onProgress } : {}) })
    try {
      const files = { processorFilesFrom: from, ...(layout ? { layout } : {}), ...(shardBytes ? { shardBytes } : {}) }
      await save(to, { config, tensors, ...files })
    } finally {
      const unchanged = new Set(namedParameters(params).map(([, tensor]) => tensor))
      for (const tensor of Object.values(tensors)) if (!unchanged.has(tensor)) tensor.dispose()
    }
  } finally {
    internvl.dispose()
  }
}
