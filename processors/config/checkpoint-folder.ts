import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import * as t from 'io-ts'
import { errorText, type Issues, invalid } from '../../lib/error.js'
import { readSmallFile, readSmallText } from '../../lib/files.js'
import { isRecord } from '../../lib/plain-object.js'
import { sentencePieceFiles, sentencePieceTokenizer } from '../text/sentencepiece/sentencepiece-files.js'
import { tokenizerFromVocabulary } from '../text/vocabulary.js'
import type { ProcessorFiles } from './processor-config.js'

/** The parsed processor files of a checkpoint folder; `undefined` for files that are absent or unreadable. */
export interface ProcessorFolder extends ProcessorFiles {
  readonly tokenizer: unknown
  readonly tokenizerConfig: unknown
  /** The folder's chat template, and the file that contains it. */
  readonly template: { readonly source: string; readonly name: string } | undefined
  /** Errors of reading and parsing, by file name; a missing tokenizer is an error of `tokenizer.json`. */
  readonly issues: ReadonlyMap<string, Issues>
}

const codeOf = (error: unknown): string => (error instanceof Error && 'code' in error ? String(error.code) : String(error))

const readText = async (path: string): Promise<E.Either<Issues, string | undefined>> => {
  try {
    return E.right(await readSmallText(path))
  } catch (error) {
    const code = codeOf(error)
    return code === 'ENOENT' ? E.right(undefined) : invalid('Unreadable', `${path}: cannot be read (${code}).`, { path })
  }
}

const readJson = async (path: string): Promise<E.Either<Issues, unknown>> => {
  const text = await readText(path)
  if (E.isLeft(text) || text.right === undefined) return text
  try {
    return E.right(JSON.parse(text.right))
  } catch (error) {
    return invalid('Json', `${path}: it is not JSON (${errorText(error)})`, { path })
  }
}

const Named = t.array(t.type({ name: t.string, template: t.string }))

const chatTemplateIn = (value: unknown): string | undefined => {
  if (!t.UnknownRecord.is(value)) return undefined
  const template = value.chat_template
  if (typeof template === 'string') return template
  if (!Named.is(template)) return undefined
  return (template.find(({ name }) => name === 'default') ?? template[0])?.template
}

/** The tokenizer of a folder that has tokenizer.model, as tokenizer.json; undefined without one. */
const readSentencePiece = async (dir: string): Promise<E.Either<Issues, unknown> | undefined> => {
  const contents = await Promise.all(
    sentencePieceFiles.map(async (name) => [name, await readSmallFile(join(dir, name)).catch(() => undefined)] as const)
  )
  return sentencePieceTokenizer(new Map(contents.flatMap(([name, bytes]) => (bytes ? [[name, bytes] as const] : []))), dir)
}

const tokenizerWithoutJson = async (
  dir: string,
  vocab: unknown,
  merges: unknown,
  config: unknown
): Promise<E.Either<Issues, unknown>> => {
  const converted = vocab === undefined || typeof merges !== 'string' ? await readSentencePiece(dir) : undefined
  if (converted) return converted
  if (vocab === undefined || typeof merges !== 'string')
    return invalid('NoTokenizer', `${dir}: no tokenizer.json; is this a checkpoint folder?`, { dir })
  return tokenizerFromVocabulary(vocab, merges, t.UnknownRecord.is(config) ? config.tokenizer_class : undefined, dir)
}

const jsonNames = [
  'config.json',
  'processor_config.json',
  'preprocessor_config.json',
  'video_preprocessor_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'chat_template.json',
  'vocab.json'
] as const
const textNames = ['merges.txt', 'chat_template.jinja'] as const
type Name = (typeof jsonNames)[number] | (typeof textNames)[number]

/** The chat template of a folder. Source: `ProcessorMixin.get_processor_dict` (transformers 5.24), for the order of the files. */
const templateOf = (dir: string, at: (name: Name) => unknown): ProcessorFolder['template'] => {
  const jinja = at('chat_template.jinja')
  const templateIn = (name: Name) => ({ source: chatTemplateIn(at(name)), name })
  const templates = [
    templateIn('processor_config.json'),
    templateIn('chat_template.json'),
    { source: typeof jinja === 'string' ? jinja : undefined, name: 'chat_template.jinja' },
    templateIn('tokenizer_config.json')
  ]
  const [found] = templates.flatMap(({ source, name }) => (source === undefined ? [] : [{ source, name: join(dir, name) }]))
  return found
}

/**
 * tokenizer_config.json beside a tokenizer.json, whose post-processor alone says which tokens begin and end a text. Source:
 * `PreTrainedTokenizerBase._from_pretrained` (transformers 5.24).
 */
const withoutAffixes = (config: unknown): unknown => {
  if (!isRecord(config)) return config
  const { add_bos_token: _, add_eos_token: __, ...rest } = config
  return rest
}

/** Reads the processor files of a checkpoint folder. Errors are gathered in `issues`. */
export const readProcessorFolder = async (dir: string): Promise<ProcessorFolder> => {
  const read = new Map<Name, E.Either<Issues, unknown>>(
    await Promise.all([
      ...jsonNames.map(async (name) => [name, await readJson(join(dir, name))] as const),
      ...textNames.map(async (name) => [name, await readText(join(dir, name))] as const)
    ])
  )
  const at = (name: Name): unknown => E.getOrElse((): unknown => undefined)(read.get(name)!)
  const tokenizer = at('tokenizer.json')
  const hasTokenizer = tokenizer !== undefined || E.isLeft(read.get('tokenizer.json')!)
  if (!hasTokenizer)
    read.set('tokenizer.json', await tokenizerWithoutJson(dir, at('vocab.json'), at('merges.txt'), at('tokenizer_config.json')))
  return {
    dir,
    config: at('config.json'),
    processor: at('processor_config.json'),
    preprocessor: at('preprocessor_config.json'),
    videoPreprocessor: at('video_preprocessor_config.json'),
    tokenizer: at('tokenizer.json'),
    tokenizerConfig: (hasTokenizer ? withoutAffixes(at('tokenizer_config.json')) : at('tokenizer_config.json')) ?? {},
    template: templateOf(dir, at),
    issues: new Map([...read].flatMap(([name, result]) => (E.isLeft(result) ? [[name, result.left] as const] : [])))
  }
}
