import { join } from 'node:path'
import { type Issue, issue } from '../../lib/error.js'
import { isJson, type Json } from '../config/config-fields.js'
import { packedVersion } from './quantized-keys.js'

/** What quantizes weights, by the names that config.json has for it, as people know it. */
const names: Readonly<Record<string, string>> = {
  bitsandbytes: 'bitsandbytes',
  awq: 'AWQ',
  gptq: 'GPTQ',
  'compressed-tensors': 'compressed-tensors'
}

/** All notes about quantized weights in a config.json, of the whole and of its parts. */
const notesOf = (json: Json): readonly Json[] => [
  ...(isJson(json.quantization_config) ? [json.quantization_config] : []),
  ...Object.entries(json).flatMap(([key, value]) => (key !== 'quantization_config' && isJson(value) ? notesOf(value) : []))
]

/** How it would be said here: the number of bits that is nearest. */
const instead = (note: Json): string => {
  const bits = note.load_in_8bit === true ? 8 : note.load_in_4bit === true ? 4 : Number(note.bits ?? note.w_bit ?? 4)
  return bits >= 8 ? 'int8' : '4bit'
}

const issueOf = (note: Json, file: string): readonly Issue[] => {
  if (note.library === 'internvl-tfjs') {
    if (note.version === packedVersion) return []
    const message = `${file}: its weights are packed in version ${note.version}, this release reads ${packedVersion}: use the release that packed it, or pack the source again`
    return [issue('PackedVersion', message, { file, expected: packedVersion, actual: note.version })]
  }
  const isOfBits = note.load_in_8bit === true || note.load_in_4bit === true
  const method = typeof note.quant_method === 'string' ? note.quant_method : isOfBits ? 'bitsandbytes' : undefined
  if (method === undefined || method === 'mxfp4') return []
  const bits = instead(note)
  const message =
    `${file}: its weights are quantized by ${names[method] ?? method}, which is not read here: ` +
    `take the model's folder as it was published unquantized, with --quantize ${bits} (quantize: '${bits}')`
  return [issue('QuantizedElsewhere', message, { file, actual: method })]
}

/**
 * What keeps weights from being read that other software quantized: bitsandbytes, AWQ, GPTQ and the like pack them in ways of their
 * own. MXFP4, as GPT-OSS is published, is read. Errors: `QuantizedElsewhere`, `PackedVersion`.
 */
export const quantizationIssues = (json: Json, dir: string): readonly Issue[] => {
  const issues = notesOf(json).flatMap((note) => issueOf(note, join(dir, 'config.json')))
  return issues.filter((f, i) => issues.findIndex(({ message }) => message === f.message) === i)
}
