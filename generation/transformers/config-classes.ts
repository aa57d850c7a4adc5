import { type Either, map } from 'fp-ts/lib/Either.js'
import { getOrThrow, type Issues, orThrow } from '../../lib/error.js'
import { isRecord } from '../../lib/plain-object.js'
import {
  parseConfig,
  readConfig,
  type VisionConfig,
  type InternVLConfig as WholeConfig
} from '../../models/config/parse-config.js'
import type { Dtype, Quantization } from '../../models/quantization/precision.js'
import type { LoadOptions } from '../checkpoint/load.js'
import { type HubOptions, modelFolder } from '../hub/index.js'

/** Fields of a config.json, in camel case or snake case. */
export type ConfigFields = Readonly<Record<string, unknown>>

/** A configuration class: missing fields have Transformers' defaults. Throws one `InternVLError` with all errors. */
export interface ConfigClass<C> {
  new (fields?: ConfigFields): C
  readonly prototype: C
  fromPretrained(name: string, options?: HubOptions): Promise<C>
}

const snake = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)

/** Converts camel-case keys to the snake-case keys of config.json, at every depth. */
const asJson = (value: unknown): unknown =>
  isRecord(value) ? Object.fromEntries(Object.entries(value).map(([key, inner]) => [snake(key), asJson(inner)])) : value

/** A class whose instances are the parsed values, so that `instanceof` works. */
const configClass = <C extends object>(parse: (json: unknown) => Either<Issues, C>, part: (whole: WholeConfig) => C) => {
  class Config {
    constructor(fields: ConfigFields = {}) {
      Object.assign(this, getOrThrow(parse(asJson(fields))))
    }
    static async fromPretrained(name: string, options: HubOptions = {}): Promise<C> {
      const whole = await orThrow(readConfig(await orThrow(modelFolder(name, options))))
      return Object.assign(Object.create(Config.prototype), part(whole))
    }
  }
  return Config as unknown as ConfigClass<C>
}

const whole = (json: unknown) =>
  parseConfig({ model_type: 'internvl', text_config: { model_type: 'qwen2' }, ...(json as object) })

/** `InternVLConfig` of Transformers: configuration of the whole model. */
export type InternVLConfig = WholeConfig
/** `new InternVLConfig({ visionConfig: { hiddenSize: 64 } })`, `await InternVLConfig.fromPretrained('path/to/InternVL3-1B-hf')`. */
export const InternVLConfig: ConfigClass<WholeConfig> = configClass(whole, (config) => config)

/** `InternVLVisionConfig` of Transformers: configuration of the vision tower. */
export type InternVLVisionConfig = VisionConfig
/** `new InternVLVisionConfig({ hiddenSize: 64, numHiddenLayers: 2 })`. */
export const InternVLVisionConfig: ConfigClass<VisionConfig> = configClass(
  (json) => map((config: WholeConfig) => config.visionConfig)(whole({ vision_config: json })),
  (config) => config.visionConfig
)

/** `BitsAndBytesConfig` of Transformers: selects 8 or 4 bits; the quantization formats are those of this library. */
export interface BitsAndBytesConfig {
  readonly loadIn8bit?: boolean | undefined
  readonly loadIn4bit?: boolean | undefined
}

/** Options of `fromPretrained`: the options of `load`, also under the names of Transformers. */
export interface PretrainedOptions extends LoadOptions {
  /** The earlier name of `dtype`. */
  readonly torchDtype?: Dtype | undefined
  /** `quantize` under the name of Transformers. */
  readonly quantizationConfig?: BitsAndBytesConfig | undefined
}

const toQuantization = ({ loadIn8bit, loadIn4bit }: BitsAndBytesConfig): Quantization | undefined => {
  if (loadIn8bit && loadIn4bit)
    throw new RangeError('quantizationConfig: loadIn8bit and loadIn4bit are both true; only one can be')
  return loadIn8bit ? 'int8' : loadIn4bit ? 'int4' : undefined
}

/** The options of `load`. Throws a `RangeError` for contradictory options. */
export const loadOptions = ({ torchDtype, quantizationConfig, ...options }: PretrainedOptions): LoadOptions => {
  const [dtype, quantize] = [options.dtype ?? torchDtype, options.quantize ?? toQuantization(quantizationConfig ?? {})]
  return { ...options, ...(dtype === undefined ? {} : { dtype }), ...(quantize === undefined ? {} : { quantize }) }
}
