import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { InternVLError, type Issues, invalid, issue, whenValid } from '../../lib/error.js'
import { isRecord } from '../../lib/plain-object.js'
import { openGgufFile } from '../../models/gguf/gguf-file.js'
import { readProcessorFolder } from '../../processors/config/checkpoint-folder.js'
import { visualTokenizerConfig } from '../../processors/config/processor-files.js'
import { tokenNames } from '../../processors/text/added-tokens.js'
import { type ChatTemplate, compileTemplate } from '../../processors/text/chat-template.js'
import { ggufTokenizer } from '../../processors/text/gguf-tokenizer.js'
import { imageTemplate } from '../../processors/text/image-template.js'
import { VISUAL_TOKENS } from '../../processors/text/placeholders.js'
import { publishedTemplate } from '../../processors/text/published-templates.js'
import { buildTokenizer, type Tokenizer } from '../../processors/text/tokenizer.js'
import { addVisualTokens, type VisualTokenizer } from '../../processors/text/visual-tokenizer.js'

type Json = Readonly<Record<string, unknown>>

/** The texts of a decoder as published: its tokenizer, chat template and generation defaults. */
interface SourceText {
  readonly tokenizer: Json
  readonly config: Json
  readonly template: string | undefined
  /** generation_config.json */
  readonly generation: Json
}

/** The texts of a decoder with the visual tokens. */
export interface DecoderText extends Omit<VisualTokenizer, 'tokenizer'> {
  readonly tokenizerJson: Json
  readonly tokenizerConfig: Json
  readonly tokenizer: Tokenizer
  readonly template: ChatTemplate
  readonly generation: Json
}

const asRecord = (value: unknown): Json => (isRecord(value) ? value : {})

const readJson = async (file: string): Promise<Json> => asRecord(JSON.parse(await readFile(file, 'utf8').catch(() => '{}'))) // generation defaults are optional

const ofFolder =
  (dir: string): TE.TaskEither<Issues, SourceText> =>
  async () => {
    const folder = await readProcessorFolder(dir)
    const names = ['tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja']
    const issues = names.flatMap((name) => folder.issues.get(name) ?? [])
    const file = join(dir, 'generation_config.json')
    const generation = await readJson(file).catch(() => undefined)
    const broken = generation === undefined ? [issue('Json', `${file}: it is not JSON`, { file })] : []
    return whenValid([...issues, ...broken], () => ({
      ...{ tokenizer: asRecord(folder.tokenizer), config: asRecord(folder.tokenizerConfig) },
      ...{ template: folder.template?.source, generation: generation ?? {} }
    }))
  }

const ofGguf =
  (path: string): TE.TaskEither<Issues, SourceText> =>
  async () => {
    try {
      const file = await openGgufFile(path)
      await file.close()
      const at = (key: string) => file.metadata.get(`tokenizer.${key}`)
      const eos = ['ggml.eos_token_id', 'ggml.eot_token_id'].map(at).filter((id) => typeof id === 'number')
      const template = at('chat_template')
      return pipe(
        ggufTokenizer(file.metadata, path),
        E.map(({ tokenizer, config }) => ({
          ...{ tokenizer: asRecord(tokenizer), config },
          template: typeof template === 'string' ? template : undefined,
          generation: eos.length > 0 ? { eos_token_id: [...new Set(eos)] } : {}
        }))
      )
    } catch (error) {
      if (error instanceof InternVLError) return E.left(error.issues)
      return invalid('Gguf', `${path}: it cannot be opened (${(error as Error).message})`, { file: path })
    }
  }

const [image, video] = [VISUAL_TOKENS.context_image_token, VISUAL_TOKENS.video_token]

/** The Jinja source: the given template or the decoder's own, both with images; ChatML for a tokenizer that has its tokens. */
const templateSource = (
  { template, config }: SourceText,
  { idOf }: Tokenizer,
  path: string,
  given: string | undefined
): E.Either<Issues, string> => {
  const source = given ?? template
  if (source !== undefined)
    return imageTemplate(source, image, video, tokenNames(config), given === undefined ? path : 'chatTemplate')
  if (['<|im_start|>', '<|im_end|>'].every((token) => idOf(token) !== undefined)) return E.right(publishedTemplate(image, video))
  const message = `${path}: it has no chat template; give one with --chat-template (chatTemplate: a Jinja source)`
  return invalid('NoChatTemplate', message, { file: path })
}

const withVisualTokens =
  (path: string, given: string | undefined) =>
  (source: SourceText): E.Either<Issues, DecoderText> => {
    const { tokenizer: tokenizerJson, ...added } = addVisualTokens(source.tokenizer, source.config)
    const { chat_template: _, ...config } = source.config // in a file of its own
    const tokenizerConfig = JSON.parse(visualTokenizerConfig(JSON.stringify(config))) as Json
    return pipe(
      buildTokenizer(tokenizerJson, tokenizerConfig, path),
      E.bindTo('tokenizer'),
      E.bind('source', ({ tokenizer }) => templateSource(source, tokenizer, path, given)),
      E.bind('template', ({ tokenizer, source }) => compileTemplate(source, tokenizer.names, path)),
      E.map(({ tokenizer, template }) => ({
        ...added,
        ...{ tokenizerJson, tokenizerConfig, tokenizer, template, generation: source.generation }
      }))
    )
  }

/**
 * The tokenizer, chat template and generation defaults of a text decoder (a folder, or a GGUF file), with visual tokens and images.
 * `chatTemplate` replaces the decoder's template. Errors: those of the tokenizer's files; `NoChatTemplate`; `ChatTemplate`.
 */
export const readDecoderText = (
  path: string,
  isGguf: boolean,
  chatTemplate: string | undefined
): TE.TaskEither<Issues, DecoderText> =>
  pipe(isGguf ? ofGguf(path) : ofFolder(path), TE.chainEitherK(withVisualTokens(path, chatTemplate)))
