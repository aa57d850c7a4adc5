import { type Either, map } from 'fp-ts/lib/Either.js'
import { getOrThrow, type Issues, orThrow } from '../../lib/error.js'
import {
  parseConfig,
  readConfig,
  type VisionConfig,
  type InternVLConfig as WholeConfig
} from '../../models/config/parse-config.js'
import { type HubOptions, modelFolder } from '../hub/index.js'

/** Fields of a config.json, in camel case or as they stand there. */
export type ConfigFields = Readonly<Record<string, unknown>>

/** A configuration class: what is not given has Transformers' default. Throws an `InternVLError` with all that is wrong. */
export interface ConfigClass<C> {
  new (fields?: ConfigFields): C
  readonly prototype: C
  fromPretrained(name: string, options?: HubOptions): Promise<C>
}

const isRecord = (value: unknown): value is ConfigFields => typeof value === 'object' && value !== null && !Array.isArray(value)

const snake = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)

/** Camel case to the names of config.json, at every depth. */
const asJson = (value: unknown): unknown =>
  isRecord(value) ? Object.fromEntries(Object.entries(value).map(([key, inner]) => [snake(key), asJson(inner)])) : value

/** The value as an instance of the class, so that `instanceof` knows it. */
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

/** `InternVLConfig` of Transformers: the whole model's. */
export type InternVLConfig = WholeConfig
/** `new InternVLConfig({ visionConfig: { hiddenSize: 64 } })`, `await InternVLConfig.fromPretrained('path/to/InternVL3-1B-hf')`. */
export const InternVLConfig: ConfigClass<WholeConfig> = configClass(whole, (config) => config)

/** `InternVLVisionConfig` of Transformers: the vision tower's. */
export type InternVLVisionConfig = VisionConfig
/** `new InternVLVisionConfig({ hiddenSize: 64, numHiddenLayers: 2 })`. */
export const InternVLVisionConfig: ConfigClass<VisionConfig> = configClass(
  (json) => map((config: WholeConfig) => config.visionConfig)(whole({ vision_config: json })),
  (config) => config.visionConfig
)
