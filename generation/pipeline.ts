import { orThrow } from '../lib/error.js'
import { tf } from '../lib/tf.js'
import type { ModelInputs, PrepareOptions } from '../processors/processor.js'
import type { Messages } from '../processors/text/messages.js'
import { type InternVLCheckpoint, load } from './checkpoint/load.js'
import { type GenerationResult, generate, padSequences } from './decoding/generate.js'
import type { GenerateOptions } from './decoding/generation-options.js'
import { streamText } from './decoding/text-stream.js'
import { continues, type ManyInputs, type OneInput, type Unit, withAnswer, workOf } from './pipeline-input.js'
import { loadOptions, type PretrainedOptions } from './transformers/pretrained.js'

/** How to prepare and generate, in the names of `prepare` and `generate`, and what to give back. */
export interface PipelineOptions
  extends PrepareOptions,
    Omit<GenerateOptions, 'decode' | 'cache' | 'returnCache' | 'imageTokenId' | 'stopStrings'> {
  /** The whole conversation or prompt with the answer (true unless given), or the new text alone. */
  readonly returnFullText?: boolean | undefined
  /** Token ids of prompt and answer instead of text. */
  readonly returnTensors?: boolean | undefined
  /** Whether the last message is written on; by default where it is the assistant's. */
  readonly continueFinalMessage?: boolean
  /** Ends the answer, which includes it. */
  readonly stopSequence?: string | readonly string[] | undefined
  /** Whether special tokens are left out of texts; true unless given. */
  readonly skipSpecialTokens?: boolean | undefined
  /** Conversations that are answered at a time; 1 unless given. It changes no answer. */
  readonly batchSize?: number | undefined
  /** Told after each input: inputs answered, and all. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined
  /** Told text as it is made, and which input it answers. */
  readonly onText?: ((text: string, input: number) => void) | undefined
}

/** A record of the answer, named as Transformers names it. */
export type PipelineOutput<O extends PipelineOptions = PipelineOptions> = { readonly inputText: string | Messages } & (O extends {
  readonly returnTensors: true
}
  ? { readonly generatedTokenIds: readonly number[] }
  : { readonly generatedText: O extends { readonly returnFullText: false } ? string : string | Messages })

export interface ImageTextToTextPipeline {
  /** One conversation, `{ text, images }` or prompt: a record for each answer. */
  <const O extends PipelineOptions>(input: OneInput, options?: O): Promise<readonly PipelineOutput<O>[]>
  /** A list of them: a list of such lists. */
  <const O extends PipelineOptions>(inputs: ManyInputs, options?: O): Promise<readonly (readonly PipelineOutput<O>[])[]>
  readonly internvl: InternVLCheckpoint
  /** Frees the model, if the pipeline opened it. */
  readonly dispose: () => void
}

/** Source: `ImageTextToTextPipeline._default_generation_config` (transformers 5.23). */
const defaultNewTokens = 256

/** Units that make one batch: as many as asked for, and alike in how their prompts end. */
const batchesOf = (units: readonly Unit[], size: number, asked: boolean | undefined): readonly (readonly Unit[])[] => {
  const kind = (unit: Unit) => ('messages' in unit ? continues(unit.messages, asked) : unit)
  return units.reduce<Unit[][]>((batches, unit) => {
    const last = batches.at(-1)
    if (last && last.length < size && kind(last[0]!) === kind(unit)) last.push(unit)
    else batches.push([unit])
    return batches
  }, [])
}

const prepareBatch = ({ processor }: InternVLCheckpoint, batch: readonly Unit[], o: PipelineOptions): Promise<ModelInputs> => {
  const [first] = batch
  if ('text' in first!) return orThrow(processor.prepareText(first, o))
  const chats = batch.flatMap((unit) => ('messages' in unit ? [unit.messages] : []))
  const continueFinalMessage = continues(chats[0]!, o.continueFinalMessage)
  return orThrow(processor.prepare(chats, { ...o, continueFinalMessage, addGenerationPrompt: !continueFinalMessage }))
}

/** What each row of a batch shows of its input: the same text, or the conversation. */
const inputsOf = (batch: readonly Unit[]): readonly (string | Messages)[] =>
  batch.flatMap((unit): readonly (string | Messages)[] => ('messages' in unit ? [unit.messages] : unit.text))

/** The text after the prompt's. Prompt and answer are decoded together, as one piece of text. Source: `postprocess`. */
const newText = (prompt: string, whole: string): string => {
  const at = whole.indexOf(prompt)
  return at >= 0 && at <= 2 ? whole.slice(at + prompt.length) : whole
}

/** Generates for a batch, telling texts as they come; and rows of prompt ids, padding included. */
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
    ...options,
    stopStrings,
    decode
  })
  const stream = streamText(steps, decode)
  const prompts = inputs.inputIds.arraySync()
  for (let next = await stream.next(); ; next = await stream.next()) {
    if (next.done) return { prompts, result: next.value }
    for (const [row, text] of next.value.entries()) if (text !== '') onText(text, row)
  }
}

/** The records of a batch: of each input as many as there are answers to it. */
const answerBatch = async (
  internvl: InternVLCheckpoint,
  batch: readonly Unit[],
  options: PipelineOptions,
  onText: (text: string, row: number) => void
): Promise<readonly (readonly PipelineOutput[])[]> => {
  const { processor, generation } = internvl
  const { skipSpecialTokens = true, returnFullText = true, returnTensors } = options
  const inputs = await prepareBatch(internvl, batch, options)
  try {
    const { prompts, result } = await generateBatch(internvl, inputs, options, onText)
    const decode = (ids: readonly number[]) => processor.decode(ids, { skipSpecialTokens })
    const each = result.sequences.length / prompts.length
    const padded = padSequences(result.sequences, { ...generation, ...options })
    const record = (inputText: string | Messages, row: number, answer: number): PipelineOutput => {
      const [prompt, made] = [prompts[row]!, row * each + answer]
      if (returnTensors) return { inputText, generatedTokenIds: [...prompt, ...padded[made]!] } as unknown as PipelineOutput
      const text = newText(decode(prompt), decode([...prompt, ...result.sequences[made]!]))
      if (!returnFullText) return { inputText, generatedText: text }
      if (typeof inputText === 'string') return { inputText, generatedText: inputText + text }
      return { inputText, generatedText: withAnswer(inputText, text, continues(inputText, options.continueFinalMessage)) }
    }
    return inputsOf(batch).map((input, row) => Array.from({ length: each }, (_, answer) => record(input, row, answer)))
  } finally {
    tf.dispose([inputs.inputIds, inputs.attentionMask, ...(inputs.pixelValues ? [inputs.pixelValues] : [])])
  }
}

const runPipeline = async (internvl: InternVLCheckpoint, input: unknown, options: PipelineOptions = {}) => {
  const { batchSize = 1, onProgress, onText } = options
  if (!Number.isSafeInteger(batchSize) || batchSize < 1)
    throw new RangeError(`batchSize: it should be an integer, 1 or more; it is ${batchSize}`)
  if ([options.stopSequence ?? []].flat().includes(''))
    throw new RangeError('stopSequence: it should be a text that is not empty, or a list of such')
  if (options.returnTensors && options.returnFullText !== undefined)
    throw new RangeError('returnFullText: it is mutually exclusive with returnTensors')
  const { units, nested } = workOf(input)
  const outputs: (readonly PipelineOutput[])[] = []
  const samples = options.numReturnSequences ?? internvl.generation.numReturnSequences ?? 1
  let done = 0
  for (const batch of batchesOf(units, batchSize, options.continueFinalMessage)) {
    const first = outputs.length
    outputs.push(
      ...(await answerBatch(internvl, batch, options, (text, row) => onText?.(text, first + Math.floor(row / samples))))
    )
    done += batch.length
    onProgress?.(done, units.length)
  }
  return nested ? outputs : outputs.flat()
}

/**
 * The pipeline of Transformers' name, over a checkpoint folder, the name of one, or an open checkpoint.
 * Throws an `InternVLError` for files, messages and pictures, a `RangeError` for options.
 *
 * `const pipe = await pipeline('image-text-to-text', 'path/to/InternVL3-1B-hf')`
 * `const [output] = await pipe(messages, { maxNewTokens: 50, returnFullText: false })`
 */
export const pipeline = async (
  task: 'image-text-to-text',
  model?: string | InternVLCheckpoint,
  options: PretrainedOptions = {}
): Promise<ImageTextToTextPipeline> => {
  if (task !== 'image-text-to-text')
    throw new RangeError(`task: there is only 'image-text-to-text'; it is ${JSON.stringify(task)}`)
  const open = typeof model === 'object'
  const internvl = open ? model : await load(model, loadOptions(options))
  const run = (input: unknown, o?: PipelineOptions) => runPipeline(internvl, input, o)
  return Object.assign(run, { internvl, dispose: () => (open ? undefined : internvl.dispose()) }) as ImageTextToTextPipeline
}
