import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import * as t from 'io-ts'
import type { Faults } from '../lib/fault.js'
import { collect, leftFault } from './collect.js'
import type { ProcessorFiles } from './config.js'
import { fromVocabulary } from './vocabulary.js'

/** The processor's files of a checkpoint folder, parsed; absent ones are `undefined`. */
export interface Folder extends ProcessorFiles {
  readonly tokenizer: unknown
  readonly tokenizerConfig: unknown
  /** The chat template that the folder ships, and which file it is from. */
  readonly template: { readonly source: string; readonly name: string } | undefined
}

const codeOf = (error: unknown): string => (error instanceof Error && 'code' in error ? String(error.code) : String(error))

const readText = async (path: string): Promise<E.Either<Faults, string | undefined>> => {
  try {
    return E.right(await readFile(path, 'utf8'))
  } catch (error) {
    const code = codeOf(error)
    return code === 'ENOENT' ? E.right(undefined) : leftFault('Unreadable', `${path}: cannot be read (${code}).`, { path })
  }
}

const readJson = async (path: string): Promise<E.Either<Faults, unknown>> => {
  const text = await readText(path)
  if (E.isLeft(text) || text.right === undefined) return text
  try {
    return E.right(JSON.parse(text.right))
  } catch (error) {
    return leftFault('Json', `${path}: not JSON: ${(error as Error).message}.`, { path })
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

const withoutTokenizer = (dir: string, vocab: unknown, merges: unknown, config: unknown): E.Either<Faults, unknown> => {
  if ((vocab === undefined || typeof merges !== 'string') && existsSync(join(dir, 'tokenizer.model')))
    return leftFault(
      'NoTokenizer',
      `${dir}: it has tokenizer.model (SentencePiece), which is not read here; put tokenizer.json beside it, which a fast tokenizer of Transformers saves`,
      { dir }
    )
  if (vocab === undefined || typeof merges !== 'string')
    return leftFault('NoTokenizer', `${dir}: no tokenizer.json; is this a checkpoint folder?`, { dir })
  return fromVocabulary(vocab, merges, t.UnknownRecord.is(config) ? config.tokenizer_class : undefined, dir)
}

/** Reads what configures the processor of a checkpoint folder. Faults: no such folder, no tokenizer.json, a file that is not JSON. */
export const readFolder =
  (dir: string): TaskEither<Faults, Folder> =>
  async () => {
    const json = (name: string): Promise<E.Either<Faults, unknown>> => readJson(join(dir, name))
    const read = collect(
      await Promise.all([
        json('config.json'),
        json('processor_config.json'),
        json('preprocessor_config.json'),
        json('video_preprocessor_config.json'),
        json('tokenizer.json'),
        json('tokenizer_config.json'),
        json('chat_template.json'),
        json('vocab.json'),
        readText(join(dir, 'merges.txt')),
        readText(join(dir, 'chat_template.jinja'))
      ])
    )
    if (E.isLeft(read)) return read
    const [config, processor, preprocessor, videoPreprocessor, tokenizer, tokenizerConfig, templateJson, vocab, merges, jinja] =
      read.right
    const whole = tokenizer === undefined ? withoutTokenizer(dir, vocab, merges, tokenizerConfig) : E.right(tokenizer)
    if (E.isLeft(whole)) return whole
    const templates = [
      { source: typeof jinja === 'string' ? jinja : undefined, name: 'chat_template.jinja' },
      { source: templateIn(templateJson), name: 'chat_template.json' },
      { source: templateIn(processor), name: 'processor_config.json' },
      { source: templateIn(tokenizerConfig), name: 'tokenizer_config.json' }
    ]
    const found = templates.find((template): template is { source: string; name: string } => template.source !== undefined)
    const template = found && { source: found.source, name: join(dir, found.name) }
    return E.right({
      dir,
      config,
      processor,
      preprocessor,
      videoPreprocessor,
      tokenizer: whole.right,
      tokenizerConfig: tokenizerConfig ?? {},
      template
    })
  }
