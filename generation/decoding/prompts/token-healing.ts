import { tf } from '../../../lib/tf.js'
import type { Tokenizer } from '../../../processors/text/tokenizer.js'
import type { LogitsProcessor } from '../generation-options.js'
import { sequenceBias } from '../logits-processors.js'
import type { GenerateInputs } from '../prefill.js'
import type { GenerationResult } from '../prepare-generation.js'
import { paddedPrompts } from './guidance.js'

/** Bias of the tokens that begin with the text of the last token, and of that token itself. Source: `heal_tokens` (transformers 5.24). */
const [EXTENSION_BIAS, TAIL_BIAS] = [10, 11]

/**
 * The ids of the tokens whose names in the vocabulary begin with the text of a token. Names have no plain spaces, so that a token which
 * begins with a space has none, as in Transformers.
 */
const extensionsOf = ({ decode, tokenOf, isSpecial, vocabSize }: Tokenizer, id: number): readonly number[] => {
  const text = decode([id])
  if (isSpecial(id) || !tokenOf(id)?.startsWith(text)) return [id]
  return [...Array(vocabSize).keys()].filter((other) => !isSpecial(other) && tokenOf(other)?.startsWith(text))
}

/** A prompt without special tokens is stripped and encoded again, as Transformers does; others are healed as they are. */
const encodedAgain = (ids: readonly number[], { decode, encode, isSpecial }: Tokenizer): readonly number[] =>
  ids.some(isSpecial) ? ids : encode(decode(ids, { skipSpecialTokens: true }).trim())

/** Generates one token for each prompt. */
type GenerateOne = (inputs: GenerateInputs, processor: LogitsProcessor) => Promise<GenerationResult>

/**
 * The prompts with their last token replaced by the model's greedy choice among the tokens that begin with its text: a prompt that ends
 * within a word, such as `http`, is continued as if its end were open. Prompts of one token stay as they are. Source: `heal_tokens`
 * (transformers 5.24).
 */
export const healedPrompts = async (
  prompts: readonly (readonly number[])[],
  { inputIds: _, attentionMask: __, promptIds: ___, ...images }: GenerateInputs,
  tokenizer: Tokenizer,
  generateOne: GenerateOne
): Promise<readonly (readonly number[])[]> => {
  const encoded = prompts.map((ids) => encodedAgain(ids, tokenizer))
  const extensions = encoded.map((ids) => (ids.length > 1 ? extensionsOf(tokenizer, ids.at(-1)!) : []))
  if (extensions.every((ids) => ids.length <= 1)) return encoded
  const trimmed = encoded.map((ids) => (ids.length > 1 ? ids.slice(0, -1) : ids))
  const biases = new Map(
    trimmed.map((ids, row) => {
      const tail = encoded[row]!.at(-1)
      return [ids.join(), sequenceBias(extensions[row]!.map((id) => [[id], id === tail ? TAIL_BIAS : EXTENSION_BIAS]))] as const
    })
  )
  const inputs = paddedPrompts(trimmed)
  try {
    const bias: LogitsProcessor = (ids, logits, promptLength) => biases.get(ids.join())?.(ids, logits, promptLength) ?? logits
    const { sequences } = await generateOne({ ...images, ...inputs }, bias)
    return encoded.map((ids, row) => {
      const healed = sequences[row]![0] // undefined after an abort
      return extensions[row]!.length > 1 && healed !== undefined ? [...trimmed[row]!, healed] : ids
    })
  } finally {
    tf.dispose([inputs.inputIds, inputs.attentionMask])
  }
}
