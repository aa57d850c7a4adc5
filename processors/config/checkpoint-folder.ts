import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import * as t from 'io-ts'
import type { Issues } from '../../lib/error.js'
import { invalid } from '../collect.js'
import { fromVocabulary } from '../text/vocabulary.js'
import type { ProcessorFiles } from './processor-config.js'

/** The processor's files of a checkpoint folder, parsed; absent ones, and those that could not be read, are `undefined`. */
export interface Folder extends ProcessorFiles {
  readonly tokenizer: unknown
  readonly tokenizerConfig: unknown
  /** The chat template that the folder ships, and which file it is from. */
  readonly template: { readonly source: string; readonly name: string } | undefined
  /** What is wrong with files as such, by their names; no tokenizer at all is one of `tokenizer.json`. */
  readonly issues: ReadonlyMap<string, Issues>
}

const codeOf = (error: unknown): string => (error instanceof Error && 'code' in error ? String(error.code) : String(error))

const readText = async (path: string): Promise<E.Either<Issues, string | undefined>> => {
  try {
    return E.right(await readFile(path, 'utf8'))
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
    return invalid('Json', `${path}: it is not JSON (${(error as Error).message})`, { path })
  }
}

const Named = t.array(t.type({ name: t.string, template: t.string }))

const templateIn = (value: unknown): string | undefined => {
  if (!t.UnknownRecord.is(value)) return undefined
  const template = value.chat_template
  if (typeof template === 'string') return template
  if (!Named.is(template)) return undefined
  return (template.find(({ name }) => name === 'default') ?? template[0])?.template
}

const withoutTokenizer = (dir: string, vocab: unknown, merges: unknown, config: unknown): E.Either<Issues, unknown> => {
  if ((vocab === undefined || typeof merges !== 'string') && existsSync(join(dir, 'tokenizer.model')))
    return invalid(
      'NoTokenizer',
      `${dir}: it has tokenizer.model (SentencePiece), which is not read here; put tokenizer.json beside it, which a fast tokenizer of Transformers saves`,
      { dir }
    )
  if (vocab === undefined || typeof merges !== 'string')
    return invalid('NoTokenizer', `${dir}: no tokenizer.json; is this a checkpoint folder?`, { dir })
  return fromVocabulary(vocab, merges, t.UnknownRecord.is(config) ? config.tokenizer_class : undefined, dir)
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

const templateOf = (dir: string, at: (name: Name) => unknown): Folder['template'] => {
  const jinja = at('chat_template.jinja')
  const names = ['chat_template.json', 'processor_config.json', 'tokenizer_config.json'] as const
  const templates = [
    { source: typeof jinja === 'string' ? jinja : undefined, name: 'chat_template.jinja' },
    ...names.map((name) => ({ source: templateIn(at(name)), name }))
  ]
  const [found] = templates.flatMap(({ source, name }) => (source === undefined ? [] : [{ source, name: join(dir, name) }]))
  return found
}

/** Reads what configures the processor of a checkpoint folder; what is wrong with its files stands in `errors`. */
export const readFolder = async (dir: string): Promise<Folder> => {
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
    read.set('tokenizer.json', withoutTokenizer(dir, at('vocab.json'), at('merges.txt'), at('tokenizer_config.json')))
  return {
    dir,
    config: at('config.json'),
    processor: at('processor_config.json'),
    preprocessor: at('preprocessor_config.json'),
    videoPreprocessor: at('video_preprocessor_config.json'),
    tokenizer: at('tokenizer.json'),
    tokenizerConfig: at('tokenizer_config.json') ?? {},
    template: templateOf(dir, at),
    issues: new Map([...read].flatMap(([name, result]) => (E.isLeft(result) ? [[name, result.left] as const] : [])))
  }
}
