import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { type Issue, type Issues, issue, whenValid } from '../../lib/error.js'
import { readSmallText } from '../../lib/files.js'
import { withoutUndefined } from '../../lib/plain-object.js'
import {
  either,
  type Fields,
  fieldsOf,
  flag,
  isJson,
  type Json,
  type Kind,
  listOf,
  number,
  oneOf,
  text
} from '../../models/config/config-fields.js'
import type { GenerateOptions } from './generation-options.js'
import { optionRanges, type Range, tokenIdRange } from './options/option-ranges.js'
import { type WatermarkingConfig, watermarkProblem } from './watermark/watermarking-config.js'

const kindOf = ({ description, holds }: Range): Kind<number> => ({
  expected: description,
  is: (v): v is number => typeof v === 'number' && holds(v)
})
const tokenId = kindOf(tokenIdRange)
const storedId = either(
  tokenId,
  kindOf({ description: 'a negative integer for none', holds: (id) => Number.isInteger(id) && id < 0 })
)

/** A number within the range of the option. */
const numeric = (f: Fields, key: string, option: keyof typeof optionRanges): number | undefined =>
  f.maybe(key, kindOf(optionRanges[option]))

/** One token id or a list; negative ids, which some files have, mean none and are dropped. */
const ids = (f: Fields, key: string): readonly number[] | undefined => {
  const value = f.maybe(key, either(storedId, listOf(storedId)))
  return value === undefined ? undefined : [value].flat().filter((id) => id >= 0)
}

/** `[[ids, bias], …]`, as Transformers saves `sequence_bias`. */
type Biases = NonNullable<GenerateOptions['sequenceBias']>
const biases: Kind<Biases> = {
  expected: 'a list of [token ids, number] pairs',
  is: (v): v is Biases => Array.isArray(v) && v.every((pair) => listOf(tokenId).is(pair?.[0]) && number.is(pair?.[1]))
}

const camelCase = (name: string): string => name.replaceAll(/_(.)/g, (_, letter: string) => letter.toUpperCase())

/** `watermarking_config` with the names of Transformers, as an option. */
const watermarkOf = (f: Fields): GenerateOptions['watermarkingConfig'] => {
  const json = f.maybe('watermarking_config', watermarkJson)
  return json && camelCaseFields(json)
}

const camelCaseFields = (json: Json): WatermarkingConfig =>
  Object.fromEntries(Object.entries(json).flatMap(([key, value]) => (value === null || key === 'debug_mode' ? [] : [[camelCase(key), value]]))) as WatermarkingConfig // biome-ignore format: one line

const watermarkJson: Kind<Json> = {
  expected: 'the fields of a WatermarkingConfig or SynthIDTextWatermarkingConfig',
  is: (v): v is Json => isJson(v) && watermarkProblem(camelCaseFields(v)) === undefined
}

/** `[start, factor]`, as Transformers saves `exponential_decay_length_penalty`. */
const decay: Kind<readonly [number, number]> = {
  expected: 'a pair of a number of tokens and a factor above 0',
  is: (v): v is readonly [number, number] => Array.isArray(v) && v.length === 2 && v.every(number.is) && v[0]! >= 0 && v[1]! > 0
}

const optionsOf = (f: Fields): GenerateOptions => {
  const stops = f.maybe('stop_strings', either(text, listOf(text)))
  const forcedBos = ids(f, 'forced_bos_token_id')
  return {
    maxNewTokens: numeric(f, 'max_new_tokens', 'maxNewTokens'),
    maxLength: numeric(f, 'max_length', 'maxLength'),
    minNewTokens: numeric(f, 'min_new_tokens', 'minNewTokens'),
    minLength: numeric(f, 'min_length', 'minLength'),
    eosTokenIds: ids(f, 'eos_token_id'),
    padTokenId: ids(f, 'pad_token_id')?.[0],
    doSample: f.maybe('do_sample', flag),
    temperature: numeric(f, 'temperature', 'temperature'),
    topK: numeric(f, 'top_k', 'topK'),
    topP: numeric(f, 'top_p', 'topP'),
    minP: numeric(f, 'min_p', 'minP'),
    typicalP: numeric(f, 'typical_p', 'typicalP'),
    epsilonCutoff: numeric(f, 'epsilon_cutoff', 'epsilonCutoff'),
    etaCutoff: numeric(f, 'eta_cutoff', 'etaCutoff'),
    topH: numeric(f, 'top_h', 'topH'),
    maxTime: numeric(f, 'max_time', 'maxTime'),
    exponentialDecayLengthPenalty: f.maybe('exponential_decay_length_penalty', decay),
    numBeams: numeric(f, 'num_beams', 'numBeams'),
    lengthPenalty: numeric(f, 'length_penalty', 'lengthPenalty'),
    earlyStopping: f.maybe('early_stopping', either(flag, oneOf(['never'] as const))),
    numReturnSequences: numeric(f, 'num_return_sequences', 'numReturnSequences'),
    repetitionPenalty: numeric(f, 'repetition_penalty', 'repetitionPenalty'),
    encoderRepetitionPenalty: numeric(f, 'encoder_repetition_penalty', 'encoderRepetitionPenalty'),
    encoderNoRepeatNgramSize: numeric(f, 'encoder_no_repeat_ngram_size', 'encoderNoRepeatNgramSize'),
    noRepeatNgramSize: numeric(f, 'no_repeat_ngram_size', 'noRepeatNgramSize'),
    promptLookupNumTokens: numeric(f, 'prompt_lookup_num_tokens', 'promptLookupNumTokens'),
    maxMatchingNgramSize: numeric(f, 'max_matching_ngram_size', 'maxMatchingNgramSize'),
    suppressTokens: ids(f, 'suppress_tokens'),
    beginSuppressTokens: ids(f, 'begin_suppress_tokens'),
    badWords: f.maybe('bad_words_ids', listOf(listOf(tokenId))),
    sequenceBias: f.maybe('sequence_bias', biases),
    forcedBosTokenId: forcedBos?.[0],
    forcedEosTokenIds: ids(f, 'forced_eos_token_id'),
    removeInvalidValues: f.maybe('remove_invalid_values', flag),
    guidanceScale: numeric(f, 'guidance_scale', 'guidanceScale'),
    watermarkingConfig: watermarkOf(f),
    renormalizeLogits: f.maybe('renormalize_logits', flag),
    stopStrings: stops === undefined ? undefined : [stops].flat()
  }
}

/**
 * Converts a parsed `generation_config.json` to options for `generate`; options that the file does not set are absent.
 * Errors, gathered: `ConfigField` with `path`, `expected`, `actual`; `ConfigNotAnObject`.
 */
export const generationConfig = (json: unknown, file = 'generation_config.json'): E.Either<Issues, GenerateOptions> => {
  if (!isJson(json)) return E.left([issue('ConfigNotAnObject', `${file}: expected a JSON object`, { file })])
  const issues: Issue[] = []
  const options = withoutUndefined(optionsOf(fieldsOf(json, file, issues)))
  return whenValid(issues, () => options)
}

/** End and padding tokens of `config.json`, for a folder without `generation_config.json`; its own fields precede the decoder's. */
const eosFromConfig = (json: unknown, file: string): E.Either<Issues, GenerateOptions> => {
  if (!isJson(json)) return E.right({})
  const decoder = json.text_config ?? json.llm_config
  const [outer, inner] = [json, isJson(decoder) ? decoder : {}].map(({ eos_token_id, pad_token_id }) => ({
    eos_token_id,
    pad_token_id
  }))
  return generationConfig(
    {
      eos_token_id: outer!.eos_token_id ?? inner!.eos_token_id ?? null,
      pad_token_id: outer!.pad_token_id ?? inner!.pad_token_id ?? null
    },
    file
  )
}

/** The value of a JSON file; undefined if the file does not exist. */
const readJson = async (file: string): Promise<E.Either<Issues, unknown>> => {
  try {
    return E.right(JSON.parse(await readSmallText(file)))
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return E.right(undefined)
    return E.left([
      issue('ConfigNotJson', `${file}: cannot be read as JSON (${message}); restore the file or delete it`, { file })
    ])
  }
}

/**
 * Options for `generate` from a checkpoint folder: its `generation_config.json`, or else the end tokens of its `config.json`.
 * Errors: `ConfigNotJson`, and the errors of `generationConfig`.
 */
export const readGenerationConfig =
  (folder: string): TaskEither<Issues, GenerateOptions> =>
  async () => {
    const file = join(folder, 'generation_config.json')
    const json = await readJson(file)
    if (E.isLeft(json)) return json
    if (json.right !== undefined) return generationConfig(json.right, file)
    const config = join(folder, 'config.json')
    const source = await readJson(config)
    return E.isLeft(source) ? E.right({}) : eosFromConfig(source.right, config) // the reader of the model reports the errors of config.json
  }
