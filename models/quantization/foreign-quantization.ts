import { join } from 'node:path'
import { distinctIssues, type Issue, issue, nameText } from '../../lib/error.js'
import { isJson, type Json } from '../config/config-fields.js'
import { readMethods } from './foreign/dequantized-files.js'
import type { Quantization } from './precision.js'
import { quantizedVersion } from './quantized-keys.js'

/** Names of quantization methods in config.json, and their common names. */
const methodNames: Readonly<Record<string, string>> = {
  bitsandbytes: 'bitsandbytes',
  awq: 'AWQ',
  gptq: 'GPTQ',
  'compressed-tensors': 'compressed-tensors'
}

/** Every `quantization_config` of a config.json, of the whole model and of its parts. */
const quantizationConfigs = (json: Json): readonly Json[] => [
  ...(isJson(json.quantization_config) ? [json.quantization_config] : []),
  ...Object.entries(json).flatMap(([key, value]) =>
    key !== 'quantization_config' && isJson(value) ? quantizationConfigs(value) : []
  )
]

/** Bits of a weight, 4 where the config states none; `w_bit` is AutoAWQ's own name. */
const bitsOf = ({ bits, w_bit }: Json): number => Number(nameText(bits ?? w_bit ?? 4))

/** The quantization of this library with the nearest number of bits. */
const alternative = (config: Json): Quantization => {
  const bits = config.load_in_8bit === true ? 8 : config.load_in_4bit === true ? 4 : bitsOf(config)
  return bits >= 8 ? 'int8' : 'int4'
}

/** Whether `dequantizedFiles` reads the weights of a method; of AWQ and GPTQ not every variant. */
const isRead = (config: Json, method: string): boolean => {
  const bits = bitsOf(config)
  if (method === 'awq') return bits === 4 && nameText(config.version ?? 'gemm').toLowerCase() === 'gemm'
  if (method === 'gptq') return [2, 4, 8].includes(bits)
  if (method === 'compressed-tensors')
    return ['pack-quantized', 'int-quantized', 'float-quantized', 'naive-quantized'].includes(nameText(config.format))
  return readMethods.includes(method)
}

/** The `quantization_config` of weights that other software quantized and that are read; undefined for other folders. */
export const foreignConfig = (json: Json): Json | undefined => {
  const found = quantizationConfigs(json).find(
    ({ library, quant_method }) => library !== 'internvl-tfjs' && quant_method !== 'mxfp4'
  )
  if (!found) return undefined
  return found.quant_method === undefined ? { ...found, quant_method: 'bitsandbytes' } : found
}

const issueOf = (config: Json, file: string): readonly Issue[] => {
  if (config.library === 'internvl-tfjs') {
    if (config.version === quantizedVersion) return []
    const message =
      `${file}: its weights are quantized in version ${nameText(config.version)} of the format, and this release reads version ` +
      `${quantizedVersion}: use the release that quantized them, or quantize the original folder again`
    return [issue('QuantizedVersion', message, { file, expected: quantizedVersion, actual: config.version })]
  }
  const isBitsAndBytes = config.load_in_8bit === true || config.load_in_4bit === true
  const method = typeof config.quant_method === 'string' ? config.quant_method : isBitsAndBytes ? 'bitsandbytes' : undefined
  if (method === undefined || method === 'mxfp4' || isRead(config, method)) return []
  const quantize = alternative(config)
  const message =
    `${file}: its weights are quantized by ${methodNames[method] ?? method}, which this library does not read: ` +
    `take the model's folder as it was published unquantized, with --quantize ${quantize} (quantize: '${quantize}')`
  return [issue('QuantizedElsewhere', message, { file, actual: method })]
}

/**
 * An error for every quantization of other software that config.json states and that is not read: rare variants of AWQ, GPTQ and
 * compressed-tensors, and other methods. MXFP4, in which GPT-OSS is published, is read. Errors: `QuantizedElsewhere`, `QuantizedVersion`.
 */
export const quantizationIssues = (json: Json, dir: string): readonly Issue[] => {
  const [first, ...others] = quantizationConfigs(json).flatMap((config) => issueOf(config, join(dir, 'config.json')))
  return first ? distinctIssues([first, ...others]) : []
}
