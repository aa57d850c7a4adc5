import * as t from 'io-ts'
import { AddedTokenJson, withDecoderTokens } from './added-tokens.js'
import { VISUAL_TOKENS } from './placeholders.js'

/** Tokens that InternVL adds to the tokenizer of a language model. Source: `internvl_chat_finetune.py` (OpenGVLab/InternVL), and `<video>`. */
const ADDED_VISUAL_TOKENS: readonly string[] = [
  VISUAL_TOKENS.start_image_token,
  VISUAL_TOKENS.end_image_token,
  VISUAL_TOKENS.context_image_token,
  ...['<quad>', '</quad>', '<ref>', '</ref>', '<box>', '</box>'],
  VISUAL_TOKENS.video_token
]

type Json = Readonly<Record<string, unknown>>

/** tokenizer.json with the visual tokens. */
export interface VisualTokenizer {
  readonly tokenizer: Json
  /** Ids of the tokens that the tokenizer did not have. */
  readonly newIds: readonly number[]
  /** Id of the token that stands for one image feature. */
  readonly imageTokenId: number
  /** Largest id plus one. */
  readonly size: number
}

/** Ids by text: of the vocabulary (an object, or a list of texts with scores) and of the added tokens. */
const idsOf = (model: unknown, added: readonly AddedTokenJson[]): ReadonlyMap<string, number> => {
  const vocab = t.UnknownRecord.is(model) ? model.vocab : undefined
  const words: ReadonlyArray<readonly [string, number]> = Array.isArray(vocab)
    ? vocab.map((entry, id) => [String(entry[0]), id])
    : Object.entries((vocab ?? {}) as Readonly<Record<string, number>>)
  return new Map([...words, ...added.map(({ content, id }) => [content, id] as const)])
}

/**
 * The tokenizer of a language model with the visual tokens, which get the ids after the largest one; tokens that it has keep their ids.
 * `tokenizer` and `config` are tokenizer.json and tokenizer_config.json.
 */
export const addVisualTokens = (tokenizer: Json, config: Json): VisualTokenizer => {
  const known = withDecoderTokens(config, t.array(AddedTokenJson).is(tokenizer.added_tokens) ? tokenizer.added_tokens : [])
  const ids = idsOf(tokenizer.model, known)
  const first = [...ids.values()].reduce((most, id) => Math.max(most, id), -1) + 1
  const missing = ADDED_VISUAL_TOKENS.filter((content) => !ids.has(content))
  const plain = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }
  const added = missing.map((content, i) => ({ id: first + i, content, ...plain }))
  return {
    tokenizer: { ...tokenizer, added_tokens: [...known, ...added] },
    newIds: added.map(({ id }) => id),
    imageTokenId: new Map([...ids, ...added.map(({ content, id }) => [content, id] as const)]).get(
      VISUAL_TOKENS.context_image_token
    )!,
    size: first + added.length
  }
}
