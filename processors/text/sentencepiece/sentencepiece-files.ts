import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as t from 'io-ts'
import type { Issues } from '../../../lib/error.js'
import { withDecoderTokens } from '../added-tokens.js'
import { tokenizerFromSentencePiece } from './convert.js'
import { parseModel } from './model-proto.js'

/** Contents of a folder's tokenizer files by name. */
type Files = ReadonlyMap<string, string | Uint8Array>

const parsed = (content: string | Uint8Array | undefined): unknown => {
  try {
    return content === undefined ? undefined : JSON.parse(Buffer.from(content).toString('utf8'))
  } catch {
    return undefined // the reader of the file reports the error
  }
}

/** Names of the files that `sentencePieceTokenizer` reads. */
export const sentencePieceFiles = [
  'tokenizer.model',
  'tokenizer_config.json',
  'added_tokens.json',
  'special_tokens_map.json'
] as const

/**
 * The tokenizer.json equivalent of a folder's tokenizer.model, with the added tokens of its other files; undefined for a folder
 * without a tokenizer.model. Errors: `SentencePiece`.
 */
export const sentencePieceTokenizer = (
  files: Files,
  dir: string
): E.Either<Issues, Readonly<Record<string, unknown>>> | undefined => {
  const model = files.get('tokenizer.model')
  if (model === undefined) return undefined
  const json = parsed(files.get('tokenizer_config.json'))
  const config = t.UnknownRecord.is(json) ? json : {}
  return pipe(
    parseModel(Buffer.from(model), `${dir}/tokenizer.model`),
    E.map((proto) => {
      const beside = {
        config,
        addedTokens: parsed(files.get('added_tokens.json')),
        specialTokensMap: parsed(files.get('special_tokens_map.json'))
      }
      const tokenizer = tokenizerFromSentencePiece(proto, beside)
      return { ...tokenizer, added_tokens: withDecoderTokens(config, tokenizer.added_tokens as never) }
    })
  )
}
