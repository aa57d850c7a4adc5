import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { type Issue, type Issues, issue, whenValid } from '../../lib/error.js'
import {
  count,
  either,
  type Fields,
  fieldsOf,
  flag,
  index,
  integer,
  isJson,
  type Kind,
  listOf,
  number,
  oneOf,
  positive,
  text
} from '../../models/config/config-fields.js'
import type { GenerateOptions } from './generation-options.js'

const between = (low: number, high: number, expected: string): Kind<number> => ({
  expected,
  is: (v): v is number => typeof v === 'number' && v >= low && v <= high
})
const share = between(Number.MIN_VALUE, 1, 'a number above 0 and at most 1')

/** One id or several; a negative one, which some files have, stands for none. */
const ids = (f: Fields, key: string): readonly number[] | undefined => {
  const value = f.maybe(key, either(integer, listOf(integer)))
  return value === undefined ? undefined : [value].flat().filter((id) => id >= 0)
}

/** `[[ids, bias], …]`, as Transformers saves it. */
type Biases = NonNullable<GenerateOptions['sequenceBias']>
const biases: Kind<Biases> = {
  expected: 'a list of pairs, token ids and a number',
  is: (v): v is Biases => Array.isArray(v) && v.every((pair) => listOf(index).is(pair?.[0]) && number.is(pair?.[1]))
}

const optionsOf = (f: Fields): GenerateOptions => {
  const stops = f.maybe('stop_strings', either(text, listOf(text)))
  const forcedBos = ids(f, 'forced_bos_token_id')
  return {
    maxNewTokens: f.maybe('max_new_tokens', count),
    maxLength: f.maybe('max_length', count),
    minNewTokens: f.maybe('min_new_tokens', index),
    minLength: f.maybe('min_length', index),
    eosTokenIds: ids(f, 'eos_token_id'),
    padTokenId: ids(f, 'pad_token_id')?.[0],
    doSample: f.maybe('do_sample', flag),
    temperature: f.maybe('temperature', between(0, Number.MAX_VALUE, 'a number, 0 or more')),
    topK: f.maybe('top_k', index),
    topP: f.maybe('top_p', share),
    minP: f.maybe('min_p', between(0, 1, 'a number between 0 and 1')),
    typicalP: f.maybe('typical_p', share),
    numBeams: f.maybe('num_beams', count),
    lengthPenalty: f.maybe('length_penalty', number),
    earlyStopping: f.maybe('early_stopping', either(flag, oneOf(['never'] as const))),
    numReturnSequences: f.maybe('num_return_sequences', count),
    repetitionPenalty: f.maybe('repetition_penalty', positive),
    noRepeatNgramSize: f.maybe('no_repeat_ngram_size', index),
    suppressTokens: ids(f, 'suppress_tokens'),
    beginSuppressTokens: ids(f, 'begin_suppress_tokens'),
    badWords: f.maybe('bad_words_ids', listOf(listOf(index))),
    sequenceBias: f.maybe('sequence_bias', biases),
    forcedBosTokenId: forcedBos?.[0],
    forcedEosTokenIds: ids(f, 'forced_eos_token_id'),
    removeInvalidValues: f.maybe('remove_invalid_values', flag),
    renormalizeLogits: f.maybe('renormalize_logits', flag),
    stopStrings: stops === undefined ? undefined : [stops].flat()
  }
}

/** Without the fields that are undefined, so that a spread of it hides nothing. */
const present = <A extends object>(record: A): A =>
  Object.fromEntries(Object.entries(record).filter(([, value]) => value !== undefined)) as A

/**
 * `generation_config.json` as parsed, to options for `generate`; only what the file says is in them.
 * Errors, all of them: `ConfigField` with `path`, `expected`, `actual`; `ConfigNotAnObject`.
 */
export const generationConfig = (json: unknown, file = 'generation_config.json'): E.Either<Issues, GenerateOptions> => {
  if (!isJson(json)) return E.left([issue('ConfigNotAnObject', `${file}: it should be a JSON object`, { file })])
  const issues: Issue[] = []
  const options = present(optionsOf(fieldsOf(json, file, issues)))
  return whenValid(issues, () => options)
}

/** What `config.json` says of ends, where a folder has no `generation_config.json`: its own, then its decoder's. */
const endsOf = (json: unknown, file: string): E.Either<Issues, GenerateOptions> => {
  if (!isJson(json)) return E.right({})
  const decoder = json.text_config ?? json.llm_config
  const [own, inner] = [json, isJson(decoder) ? decoder : {}].map(({ eos_token_id, pad_token_id }) => ({
    eos_token_id,
    pad_token_id
  }))
  return generationConfig(
    {
      eos_token_id: own!.eos_token_id ?? inner!.eos_token_id ?? null,
      pad_token_id: own!.pad_token_id ?? inner!.pad_token_id ?? null
    },
    file
  )
}

/** A JSON file's value, undefined where there is none. */
const readJson = async (file: string): Promise<E.Either<Issues, unknown>> => {
  try {
    return E.right(JSON.parse(await readFile(file, 'utf8')))
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return E.right(undefined)
    return E.left([issue('ConfigNotJson', `${file}: it cannot be read as JSON (${message})`, { file })])
  }
}

/**
 * Options for `generate` from a checkpoint folder: its `generation_config.json`, else the end tokens in its `config.json`.
 * Errors: `ConfigNotJson`, and those of `generationConfig`.
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
    return E.isLeft(source) ? E.right({}) : endsOf(source.right, config) // the model's reader tells what is wrong with it
  }
