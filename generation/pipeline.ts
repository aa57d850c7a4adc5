import { orThrow, valueText } from '../lib/error.js'
import { withoutUndefined } from '../lib/plain-object.js'
import type { ModelInputs, PrepareOptions } from '../processors/processor.js'
import type { Messages } from '../processors/text/messages.js'
import { type InternVLCheckpoint, load } from './checkpoint/load.js'
import { type GenerationResult, generate, padSequences, runToEnd } from './decoding/generate.js'
import type { GenerateOptions } from './decoding/generation-options.js'
import { withoutInnerOutputs } from './decoding/outputs/inner-outputs.js'
import { streamText } from './decoding/text-stream.js'
import {
  appendAnswer,
  continuesFinalMessage,
  type ManyInputs,
  type OneInput,
  type PipelineItem,
  parsePipelineInput
} from './pipeline-input.js'
import { loadOptions, type PretrainedOptions } from './transformers/config-classes.js'

/** Options of `prepare` and `generate` under their names, and the form of the output. */
export interface PipelineOptions
  extends PrepareOptions,
    Omit<
      GenerateOptions,
      'decode' | 'cache' | 'returnCache' | 'imageTokenId' | 'stopStrings' | 'outputAttentions' | 'outputHiddenStates'
    > {
  /** Return the whole conversation or prompt with the answer (the default), or only the new text. */
  readonly returnFullText?: boolean | undefined
  /** Return token ids of prompt and answer instead of text. */
  readonly returnTensors?: boolean | undefined
  /** Continue the last message instead of starting a new one; by default if it is the assistant's. */
  readonly continueFinalMessage?: boolean
  /** Stop string, or several; the answer includes it. */
  readonly stopSequence?: string | readonly string[] | undefined
  /** Omit special tokens from texts; true by default. */
  readonly skipSpecialTokens?: boolean | undefined
  /** Conversations in one batch; 1 by default. The batch size changes no answer. */
  readonly batchSize?: number | undefined
  /** Called after each batch with the numbers of answered and of all inputs. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined
  /** Called with new text and the index of the input that it answers. */
  readonly onText?: ((text: string, input: number) => void) | undefined
}

/** An answer with the field names of Transformers in camel case. */
export type PipelineOutput<O extends PipelineOptions = PipelineOptions> = { readonly inputText: string | Messages } & (O extends {
  readonly returnTensors: true
}
  ? { readonly generatedTokenIds: readonly number[] }
  : { readonly generatedText: O extends { readonly returnFullText: false } ? string : string | Messages })

export interface ImageTextToTextPipeline {
  /** One conversation, `{ text, images }` or prompt: one record for each answer. */
  <const O extends PipelineOptions>(input: OneInput, options?: O): Promise<readonly PipelineOutput<O>[]>
  /** A list of inputs: one list of records for each input. */
  <const O extends PipelineOptions>(inputs: ManyInputs, options?: O): Promise<readonly (readonly PipelineOutput<O>[])[]>
  readonly internvl: InternVLCheckpoint
  /** Frees the model if the pipeline loaded it. */
  readonly dispose: () => void
}

/** Source: `ImageTextToTextPipeline._default_generation_config` (transformers 5.24). */
const defaultNewTokens = 256

/** Splits the items into batches of at most `size` whose prompts end alike. */
const toBatches = (
  items: readonly PipelineItem[],
  size: number,
  requested: boolean | undefined
): readonly (readonly PipelineItem[])[] => {
  const kind = (item: PipelineItem) => ('messages' in item ? continuesFinalMessage(item.messages, requested) : item)
  return items.reduce<PipelineItem[][]>((batches, item) => {
    const last = batches.at(-1)
    if (last && last.length < size && kind(last[0]!) === kind(item)) last.push(item)
    else batches.push([item])
    return batches
  }, [])
}

const prepareBatch = (
  { processor }: InternVLCheckpoint,
  batch: readonly PipelineItem[],
  o: PipelineOptions
): Promise<ModelInputs> => {
  const [first] = batch
  if ('text' in first!) return orThrow(processor.prepareText(first, o))
  const chats = batch.flatMap((item) => ('messages' in item ? [item.messages] : []))
  const continueFinalMessage = continuesFinalMessage(chats[0]!, o.continueFinalMessage)
  return orThrow(processor.prepare(chats, { ...o, continueFinalMessage, addGenerationPrompt: !continueFinalMessage }))
}

/** `inputText` of each row of a batch: the text, or the conversation. */
const inputsOfRows = (batch: readonly PipelineItem[]): readonly (string | Messages)[] =>
  batch.flatMap((item): readonly (string | Messages)[] => ('messages' in item ? [item.messages] : item.text))

/** The text after the prompt, where prompt and answer were decoded together. Source: `postprocess`. */
const newText = (prompt: string, whole: string): string => {
  const at = whole.indexOf(prompt)
  return at >= 0 && at <= 2 ? whole.slice(at + prompt.length) : whole
}

/** Generates a batch and calls `onText` with new text; `prompts` are the rows of prompt ids, padding included. */
const generateBatch = async (
  { model, processor, generation }: InternVLCheckpoint,
  inputs: ModelInputs,
  options: PipelineOptions,
  onText: (text: string, row: number) => void
): Promise<{ readonly prompts: readonly (readonly number[])[]; readonly result: GenerationResult }> => {
  const { stopSequence, skipSpecialTokens = true } = options
  const decode = (ids: readonly number[]) => processor.decode(ids, { skipSpecialTokens })
  const stopStrings = stopSequence === undefined ? generation.stopStrings : [stopSequence].flat()
  const steps = generate(model, inputs, {
    ...(generation.maxLength === undefined ? { maxNewTokens: defaultNewTokens } : {}),
    ...generation,
    ...withoutUndefined(options),
    ...withoutInnerOutputs,
    stopStrings,
    decode: processor.decode
  })
  const result = await runToEnd(streamText(steps, decode), (texts) => {
    for (const [row, text] of texts.entries()) if (text !== '') onText(text, row)
  })
  return { prompts: inputs.inputIds.arraySync(), result }
}

/** The records of a batch, `numReturnSequences` for each input. */
const answerBatch = async (
  internvl: InternVLCheckpoint,
  batch: readonly PipelineItem[],
  options: PipelineOptions,
  onText: (text: string, row: number) => void
): Promise<readonly (readonly PipelineOutput[])[]> => {
  const { processor, generation } = internvl
  const { skipSpecialTokens = true, returnFullText = true, returnTensors } = options
  const inputs = await prepareBatch(internvl, batch, options)
  try {
    const { prompts, result } = await generateBatch(internvl, inputs, options, onText)
    const decode = (ids: readonly number[]) => processor.decode(ids, { skipSpecialTokens })
    const answersPerPrompt = result.sequences.length / prompts.length
    const padded = padSequences(result.sequences, { ...generation, ...withoutUndefined(options) })
    const record = (inputText: string | Messages, row: number, answer: number): PipelineOutput => {
      const [prompt, sequence] = [prompts[row]!, row * answersPerPrompt + answer]
      if (returnTensors) return { inputText, generatedTokenIds: [...prompt, ...padded[sequence]!] } as unknown as PipelineOutput
      const text = newText(decode(prompt), decode([...prompt, ...result.sequences[sequence]!]))
      if (!returnFullText) return { inputText, generatedText: text }
      if (typeof inputText === 'string') return { inputText, generatedText: inputText + text }
      return {
        inputText,
        generatedText: appendAnswer(inputText, text, continuesFinalMessage(inputText, options.continueFinalMessage))
      }
    }
    return inputsOfRows(batch).map((input, row) =>
      Array.from({ length: answersPerPrompt }, (_, answer) => record(input, row, answer))
    )
  } finally {
    inputs.dispose()
  }
}

const runPipeline = async (internvl: InternVLCheckpoint, input: unknown, options: PipelineOptions = {}) => {
  const { batchSize = 1, onProgress, onText } = options
  if (!Number.isSafeInteger(batchSize) || batchSize < 1)
    throw new RangeError(`batchSize: expected an integer, 1 or more, got ${valueText(batchSize)}`)
  if ([options.stopSequence ?? []].flat().includes(''))
    throw new RangeError('stopSequence: expected a non-empty string or a list of non-empty strings')
  if (options.returnTensors && options.returnFullText !== undefined)
    throw new RangeError('returnFullText: mutually exclusive with returnTensors; give one of them')
  const { items, isList } = parsePipelineInput(input)
  const outputs: (readonly PipelineOutput[])[] = []
  const samples = options.numReturnSequences ?? internvl.generation.numReturnSequences ?? 1
  let done = 0
  for (const batch of toBatches(items, batchSize, options.continueFinalMessage)) {
    const first = outputs.length
    outputs.push(
      ...(await answerBatch(internvl, batch, options, (text, row) => onText?.(text, first + Math.floor(row / samples))))
    )
    done += batch.length
    onProgress?.(done, items.length)
  }
  return isList ? outputs : outputs.flat()
}

/**
 * The image-text-to-text pipeline of Transformers, for a checkpoint folder, `org/name` of the hub, or a loaded checkpoint.
 * Throws an `InternVLError` for files, messages and images, a `RangeError` for options.
 *
 * `const pipe = await pipeline('image-text-to-text', 'path/to/InternVL3-1B-hf')`
 * `const [output] = await pipe(messages, { maxNewTokens: 50, returnFullText: false })`
 */
export const pipeline = async (
  task: 'image-text-to-text',
  model?: string | InternVLCheckpoint,
  options: PretrainedOptions = {}
): Promise<ImageTextToTextPipeline> => {
  if (task !== 'image-text-to-text') throw new RangeError(`task: expected 'image-text-to-text', got ${valueText(task)}`)
  const isLoaded = typeof model === 'object'
  const internvl = isLoaded ? model : await load(model, loadOptions(options))
  const run = (input: unknown, o?: PipelineOptions) => runPipeline(internvl, input, o)
  return Object.assign(run, { internvl, dispose: () => (isLoaded ? undefined : internvl.dispose()) }) as ImageTextToTextPipeline
}
