import type { Dtype, Quantization } from '../../models/quantization/precision.js'
import type { LoadOptions } from '../checkpoint/load.js'

/** `BitsAndBytesConfig` of Transformers, as far as it says how many bits; the forms of the weights are this library's. */
export interface BitsAndBytesConfig {
  readonly loadIn8bit?: boolean | undefined
  readonly loadIn4bit?: boolean | undefined
}

/** What `fromPretrained` takes: the options of `load`, also in the names that Transformers has for them. */
export interface PretrainedOptions extends LoadOptions {
  /** `dtype` by its earlier name. */
  readonly torchDtype?: Dtype | undefined
  /** `quantize` by the name that it has there. */
  readonly quantizationConfig?: BitsAndBytesConfig | undefined
}

const bits = ({ loadIn8bit, loadIn4bit }: BitsAndBytesConfig): Quantization | undefined => {
  if (loadIn8bit && loadIn4bit)
    throw new RangeError('quantizationConfig: loadIn8bit and loadIn4bit are both true; only one can be')
  return loadIn8bit ? 'int8' : loadIn4bit ? '4bit' : undefined
}

/** The same in the names of `load`. Throws a `RangeError` for what contradicts itself. */
export const loadOptions = ({ torchDtype, quantizationConfig, ...options }: PretrainedOptions): LoadOptions => {
  const [dtype, quantize] = [options.dtype ?? torchDtype, options.quantize ?? bits(quantizationConfig ?? {})]
  return { ...options, ...(dtype === undefined ? {} : { dtype }), ...(quantize === undefined ? {} : { quantize }) }
}
