import { getOrThrow } from '../../lib/error.js'
import { withoutUndefined } from '../../lib/plain-object.js'
import type { ImageSource } from '../../processors/image/image.js'
import type { PrepareOptions } from '../../processors/processor.js'
import type { Message, Messages, VideoSource } from '../../processors/text/messages.js'
import type { InternVLCheckpoint } from '../checkpoint/load.js'
import { disposeCache, type RowCache } from '../decoding/batch-cache.js'
import { type FinishReason, generate, runToEnd } from '../decoding/generate.js'
import type { GenerateOptions } from '../decoding/generation-options.js'
import { withoutInnerOutputs } from '../decoding/outputs/inner-outputs.js'
import { streamText } from '../decoding/text-stream.js'
import { type FeatureCache, featureCache } from '../feature-cache.js'
import { withCompressedTiles } from '../flash/route-inputs.js'
import type { ResponseOptions } from '../structured/response-format.js'
import { type ResponseConstraint, responseConstraint } from '../structured/response-processor.js'
import { imageItem, restoreHistory, type SaveOptions, saveHistory, videoItem } from './history.js'
import { prepareTurn } from './turn.js'

/** Options of `generate`, without those that the session sets itself. */
type TurnOptions = Omit<
  GenerateOptions,
  'cache' | 'returnCache' | 'numReturnSequences' | 'decode' | 'imageTokenId' | 'outputAttentions' | 'outputHiddenStates'
> &
  ResponseOptions

export interface SendOptions extends TurnOptions {
  /** Images shown before the text. */
  readonly images?: readonly ImageSource[] | undefined
  /** Videos shown before the text, after the images. */
  readonly videos?: readonly VideoSource[] | undefined
}

/** Options of a session: preparation of images, and defaults of `send`. */
export interface ChatOptions extends TurnOptions, Omit<PrepareOptions, 'addGenerationPrompt' | 'continueFinalMessage'> {
  /** System message. */
  readonly system?: string | undefined
  /** Messages of an earlier conversation to continue. */
  readonly history?: Messages | undefined
  /** Cache of image features; by default the checkpoint's own, which all its sessions share. */
  readonly features?: FeatureCache | undefined
}

/** An answer with its token counts. */
export interface Turn {
  readonly text: string
  readonly finishReason: FinishReason
  /** Tokens of the whole conversation before the answer; the first `reusedTokens` of them came from the KV cache. */
  readonly promptTokens: number
  readonly reusedTokens: number
  readonly newTokens: number
}

export interface ChatSession {
  /** The conversation so far, as messages of the chat template. */
  readonly history: Messages
  /**
   * Sends a message and streams the answer; the return value has the token counts. The message is sent when iteration starts.
   * An answer that is stopped, by `signal` or by `break`, stays in the history up to its last text. A message that fails before
   * the answer leaves the history unchanged. Throws an `InternVLError` for images, a `RangeError` for options.
   */
  readonly send: (text: string, options?: SendOptions) => AsyncGenerator<string, Turn, void>
  /** Sends a message and returns the whole answer. */
  readonly ask: (text: string, options?: SendOptions) => Promise<Turn>
  /** The conversation as JSON text, for `restoreChat`. */
  readonly save: (options?: SaveOptions) => Promise<string>
  /** Removes all messages but the system message. */
  readonly reset: () => void
  /** Stops the current answer and frees the KV cache of the session. */
  readonly dispose: () => void
}

/** Maximum new tokens of an answer if neither the call nor the checkpoint sets a limit. */
export const defaultMaxNewTokens = 1024

const userMessage = async (text: string, { images = [], videos = [] }: SendOptions, o: PrepareOptions): Promise<Message> => {
  const visuals = [...images.map((image) => imageItem(image, o)), ...videos.map((video) => videoItem(video, o))]
  const items = await Promise.all(visuals)
  return { role: 'user', content: items.length > 0 ? [...items, { type: 'text', text }] : text }
}

/** Separates the first messages and the feature cache from the options of preparation and generation. */
const splitOptions = (
  { system, history = [], features, ...settings }: ChatOptions,
  { model, generation, features: shared }: InternVLCheckpoint
) => ({
  initialMessages: [...(system === undefined ? [] : [{ role: 'system', content: system } as const]), ...history],
  features: features ?? (shared.model === model ? shared : featureCache(model)), // a checkpoint may be spread with another model
  settings: {
    ...(generation.maxLength === undefined ? { maxNewTokens: defaultMaxNewTokens } : {}),
    ...generation,
    ...withoutUndefined(settings),
    numReturnSequences: 1
  }
})

/**
 * A conversation with a model. Each turn computes only its new tokens, and no image is encoded twice.
 *
 * `for await (const text of chat(model).send('What is this?', { images: ['photo.jpg'] })) process.stdout.write(text)`
 */
export const chat = (internvl: InternVLCheckpoint, options: ChatOptions = {}): ChatSession => {
  const { model, processor } = internvl
  const { initialMessages, features, settings } = splitOptions(options, internvl)
  const decode = (ids: readonly number[]) => processor.decode(ids, { skipSpecialTokens: true })
  let history: Messages = initialMessages
  let cache: RowCache | undefined
  let running: AbortController | undefined
  let disposed = false

  const replaceCache = (next: RowCache | undefined): void => {
    if (cache) disposeCache(cache.kv)
    cache = next
  }

  async function* answer(turn: Messages, { images: _i, videos: _v, ...given }: SendOptions, sessionSignal: AbortSignal) {
    const turnOptions = withoutUndefined(given)
    const signals = [settings.signal, turnOptions.signal, sessionSignal].filter((signal) => signal !== undefined)
    const signal = AbortSignal.any(signals)
    const prepared = await prepareTurn(internvl, turn, cache, features, { ...settings, ...turnOptions, signal })
    const { inputs, routing, promptTokens, reusedTokens } = prepared
    const options = { ...settings, ...turnOptions, decode: processor.decode, signal, cache: [prepared.cache] }
    const o = { ...options, returnCache: true, ...withoutInnerOutputs }
    let stream: ReturnType<typeof streamText> | undefined
    let constraint: ResponseConstraint | undefined
    let answerText: string | undefined
    try {
      constraint = await responseConstraint(internvl, o.responseFormat)
      const logitsProcessors = [...(o.logitsProcessors ?? []), ...constraint.processors]
      stream = streamText(generate(model, inputs, { ...o, logitsProcessors }), decode, o.stopStrings) // throws a RangeError for options
      while (true) {
        const { done, value } = await stream.next()
        answerText ??= ''
        if (done) {
          if (value.cache) replaceCache((routing ? withCompressedTiles(value.cache, routing) : value.cache)[0])
          const newTokens = value.sequences[0]!.length
          return { text: answerText, finishReason: value.finishReasons[0]!, promptTokens, reusedTokens, newTokens }
        }
        answerText += value[0]
        if (value[0] !== '') yield value[0]!
      }
    } finally {
      if (answerText !== undefined) history = [...turn, { role: 'assistant', content: answerText }]
      await stream?.return(undefined as never)
      constraint?.release()
      prepared.dispose()
    }
  }

  async function* send(text: string, turnOptions: SendOptions = {}): AsyncGenerator<string, Turn, void> {
    if (disposed) throw new RangeError('send: the session was disposed; start a new one with chat()')
    if (running) throw new RangeError('send: the previous answer is not finished; await it, or stop it with its signal')
    running = new AbortController()
    try {
      return yield* answer([...history, await userMessage(text, turnOptions, settings)], turnOptions, running.signal)
    } finally {
      running = undefined
      if (disposed) replaceCache(undefined)
    }
  }

  return {
    get history() {
      return history
    },
    send,
    ask: (text, turnOptions) => runToEnd(send(text, turnOptions)),
    save: (saveOptions) => saveHistory(history, saveOptions),
    reset: () => {
      if (running) throw new RangeError('reset: an answer is not finished; await it, or stop it with its signal')
      history = history.filter(({ role }, i) => i === 0 && role === 'system')
      replaceCache(undefined)
    },
    dispose: () => {
      disposed = true
      running?.abort()
      if (!running) replaceCache(undefined)
    }
  }
}

/** Continues a conversation from the JSON text of `save`. Throws an `InternVLError` if the text is not a saved conversation. */
export const restoreChat = (
  internvl: InternVLCheckpoint,
  saved: string,
  options: Omit<ChatOptions, 'history'> = {}
): ChatSession => chat(internvl, { ...options, history: getOrThrow(restoreHistory(saved)) })
