import { type Issue, issue, valueText } from '../../lib/error.js'

/** A type of a field, as error messages call it, and the check of a value. */
interface FieldType {
  readonly expected: string
  readonly is: (value: unknown) => boolean
}

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
const isText = (value: unknown): boolean => typeof value === 'string'

const text: FieldType = { expected: 'a text', is: isText }
const flag: FieldType = { expected: 'true or false', is: (value) => typeof value === 'boolean' }
const number: FieldType = { expected: 'a number', is: Number.isFinite }
const object: FieldType = { expected: 'an object', is: isObject }
const list: FieldType = { expected: 'a list', is: Array.isArray }
const parts: FieldType = { expected: 'a list of objects', is: (value) => Array.isArray(value) && value.every(isObject) }
const pattern: FieldType = {
  expected: 'a text, or an object with String or Regex',
  is: (value) => isText(value) || (isObject(value) && isText(value.String ?? value.Regex))
}

const table = (type: FieldType, names: string): ReadonlyArray<readonly [string, FieldType]> =>
  names.split(' ').map((name) => [name, type] as const)

/** Fields of normalizers, pre-tokenizers, post-processors and decoders. A name has one type in all of them. */
const fieldTypes: ReadonlyMap<string, FieldType> = new Map([
  ...table(text, 'type behavior content replacement prepend prepend_scheme str_rep prefix suffix precompiled_charsmap pad_token'),
  ...table(text, 'word_delimiter_token'),
  ...table(
    flag,
    'add_prefix_space trim_offsets use_regex invert lowercase strip_accents clean_text handle_chinese_chars cleanup'
  ),
  ...table(flag, 'individual_digits strip_left strip_right left right'),
  ...table(number, 'start stop'),
  ...table(parts, 'normalizers pretokenizers processors decoders'),
  ...table(list, 'cls sep'),
  ...table(object, 'special_tokens'),
  ['pattern', pattern]
])

/** A merge is a text with one space, or a pair of texts. */
const isMerge = (merge: unknown): boolean =>
  isText(merge) || (Array.isArray(merge) && merge.length === 2 && isText(merge[0]) && isText(merge[1]))
const isScored = (entry: unknown): boolean =>
  Array.isArray(entry) && isText(entry[0]) && typeof entry[1] === 'number' && !Number.isNaN(entry[1])

const modelTypes: ReadonlyMap<string, FieldType> = new Map([
  ...table(text, 'type unk_token continuing_subword_prefix end_of_word_suffix'),
  ...table(flag, 'fuse_unk byte_fallback ignore_merges'),
  ...table(number, 'unk_id max_input_chars_per_word'),
  [
    'vocab',
    {
      expected: 'ids by text, or a list of texts with scores',
      is: (value) =>
        Array.isArray(value) ? value.every(isScored) : isObject(value) && Object.values(value).every(Number.isSafeInteger)
    }
  ],
  ['merges', { expected: 'a list of pairs of texts', is: (value) => Array.isArray(value) && value.every(isMerge) }]
])

const wrongFields = (
  value: unknown,
  types: ReadonlyMap<string, FieldType>,
  file: string,
  path: string,
  level = 0
): readonly Issue[] => {
  if (value === undefined || value === null) return []
  if (!isObject(value) || level > 16)
    return [issue('Tokenizer', `${file}: ${path}: expected an object, got ${valueText(value)}.`)]
  return Object.entries(value).flatMap(([name, field]) => {
    const type = types.get(name)
    if (!type || field === null || field === undefined) return []
    const at = `${path}.${name}`
    if (!type.is(field)) return [issue('Tokenizer', `${file}: ${at}: expected ${type.expected}, got ${valueText(field)}.`)]
    return type === parts
      ? (field as readonly unknown[]).flatMap((part, i) => wrongFields(part, types, file, `${at}.${i}`, level + 1))
      : []
  })
}

/**
 * Errors for the fields of tokenizer.json whose value has another type than all tokenizers expect there; @huggingface/tokenizers does not
 * check them, and fails at the first text.
 */
export const tokenizerFieldIssues = (json: Readonly<Record<string, unknown>>, file: string): readonly Issue[] => [
  ...wrongFields(json.model, modelTypes, file, 'model'),
  ...(isObject(json.model) && json.model.type === 'BPE' && !json.model.merges
    ? [issue('Tokenizer', `${file}: model.merges: missing; a tokenizer of type BPE has a list of merges.`)]
    : []),
  ...['normalizer', 'pre_tokenizer', 'post_processor', 'decoder'].flatMap((name) =>
    wrongFields(json[name], fieldTypes, file, name)
  )
]
