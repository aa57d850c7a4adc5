import { getOrThrow } from '../../lib/error.js'
import { tf } from '../../lib/tf.js'
import type { ImageSource } from '../../processors/image/image.js'
import type { PrepareOptions } from '../../processors/processor.js'
import type { Message, Messages, VideoSource } from '../../processors/text/messages.js'
import type { InternVLCheckpoint } from '../checkpoint/load.js'
import { disposeCache, type RowCache } from '../decoding/batch-cache.js'
import { type FinishReason, generate } from '../decoding/generate.js'
import type { GenerateOptions } from '../decoding/generation-options.js'
import { streamText } from '../decoding/text-stream.js'
import { type FeatureCache, featuresOf } from '../feature-cache.js'
import { imageItem, restoreHistory, type SaveOptions, saveHistory, videoItem } from './history.js'
import { readTurn } from './turn.js'

/** Generation as for `generate`; caches, and answers in number, are the session's own matter. */
type TurnOptions = Omit<GenerateOptions, 'cache' | 'returnCache' | 'numReturnSequences' | 'decode' | 'imageTokenId'>

export interface SendOptions extends TurnOptions {
  /** Pictures shown before the text. */
  readonly images?: readonly ImageSource[] | undefined
  /** Films shown before the text, after the pictures. */
  readonly videos?: readonly VideoSource[] | undefined
}

/** How a session prepares pictures and, where `send` does not say otherwise, generates. */
export interface ChatOptions extends TurnOptions, Omit<PrepareOptions, 'addGenerationPrompt' | 'continueFinalMessage'> {
  /** What the conversation begins with. */
  readonly system?: string | undefined
  /** A conversation to go on with. */
  readonly history?: Messages | undefined
  /** Where picture features are kept; by default in one store for all sessions of a model. */
  readonly features?: FeatureCache | undefined
}

/** An answer and what it took. */
export interface Turn {
  readonly text: string
  readonly finishReason: FinishReason
  /** Tokens of the whole conversation before the answer; the first `reusedTokens` of them were not computed again. */
  readonly promptTokens: number
  readonly reusedTokens: number
  readonly newTokens: number
}

export interface ChatSession {
  /** All that was said, as messages of the chat template. */
  readonly history: Messages
  /**
   * Asks, and streams the answer; the value at the end tells what it took. Nothing happens until it is iterated. An answer that
   * is stopped, by its `signal` or by `break`, stays in the history as far as it was said; a question that could not be
   * asked leaves no trace in it. Throws an `InternVLError` for pictures, a `RangeError` for options.
   */
  readonly send: (text: string, options?: SendOptions) => AsyncGenerator<string, Turn, void>
  /** Asks, for the whole answer. */
  readonly ask: (text: string, options?: SendOptions) => Promise<Turn>
  /** The conversation as JSON text, for `restoreChat`. */
  readonly save: (options?: SaveOptions) => Promise<string>
  /** Forgets all but the system message. */
  readonly reset: () => void
  /** Stops what is being said and frees what the session holds. */
  readonly dispose: () => void
}

/** Tokens of an answer where neither the call nor the checkpoint says. */
const longAnswer = 1024

const userMessage = async (text: string, { images = [], videos = [] }: SendOptions, o: PrepareOptions): Promise<Message> => {
  const shown = [...images.map((image) => imageItem(image, o)), ...videos.map((video) => videoItem(video, o))]
  const items = await Promise.all(shown)
  return { role: 'user', content: items.length > 0 ? [...items, { type: 'text', text }] : text }
}

/** Options of both kinds apart from what only the session understands. */
const settingsOf = ({ system, history = [], features, ...settings }: ChatOptions, { model, generation }: InternVLCheckpoint) => ({
  beginning: [...(system === undefined ? [] : [{ role: 'system', content: system } as const]), ...history],
  features: features ?? featuresOf(model),
  settings: {
    ...(generation.maxLength === undefined ? { maxNewTokens: longAnswer } : {}),
    ...generation,
    ...settings,
    numReturnSequences: 1
  }
})

/**
 * A conversation with a model. Each turn computes only its new tokens, and no picture is encoded twice.
 *
 * `for await (const text of chat(model).send('What is this?', { images: ['photo.jpg'] })) process.stdout.write(text)`
 */
export const chat = (internvl: InternVLCheckpoint, options: ChatOptions = {}): ChatSession => {
  const { model, processor } = internvl
  const { beginning, features, settings } = settingsOf(options, internvl)
  const decode = (ids: readonly number[]) => processor.decode(ids, { skipSpecialTokens: true })
  let history: Messages = beginning
  let row: RowCache | undefined
  let running: AbortController | undefined
  let disposed = false

  const replaceRow = (next: RowCache | undefined): void => {
    if (row) disposeCache(row.kv)
    row = next
  }

  async function* answer(turn: Messages, { images: _i, videos: _v, ...own }: SendOptions, ended: AbortSignal) {
    const { inputs, ...counts } = await readTurn(internvl, turn, row, features, { ...settings, ...own })
    const signal = own.signal ? AbortSignal.any([own.signal, ended]) : ended
    const o = { ...settings, ...own, decode, signal, cache: [row], returnCache: true }
    let stream: ReturnType<typeof streamText> | undefined
    let said: string | undefined
    try {
      stream = streamText(generate(model, inputs, o), decode, o.stopStrings) // throws for options
      while (true) {
        const { done, value } = await stream.next()
        said ??= ''
        if (done) {
          if (value.cache?.[0]) replaceRow(value.cache[0])
          return { text: said, finishReason: value.finishReasons[0]!, ...counts, newTokens: value.sequences[0]!.length }
        }
        said += value[0]
        if (value[0] !== '') yield value[0]!
      }
    } finally {
      if (said !== undefined) history = [...turn, { role: 'assistant', content: said }]
      await stream?.return(undefined as never)
      tf.dispose([inputs.inputIds, ...(inputs.imageFeatures ? [inputs.imageFeatures] : [])])
    }
  }

  async function* send(text: string, own: SendOptions = {}): AsyncGenerator<string, Turn, void> {
    if (disposed) throw new RangeError('send: this session is disposed')
    if (running) throw new RangeError('send: the answer before is still under way')
    running = new AbortController()
    try {
      return yield* answer([...history, await userMessage(text, own, settings)], own, running.signal)
    } finally {
      running = undefined
      if (disposed) replaceRow(undefined)
    }
  }

  return {
    get history() {
      return history
    },
    send,
    ask: async (text, own) => {
      const stream = send(text, own)
      for (let next = await stream.next(); ; next = await stream.next()) if (next.done) return next.value
    },
    save: (how) => saveHistory(history, how),
    reset: () => {
      if (running) throw new RangeError('reset: an answer is still under way')
      history = history.filter(({ role }, i) => i === 0 && role === 'system')
      replaceRow(undefined)
    },
    dispose: () => {
      disposed = true
      running?.abort()
      if (!running) replaceRow(undefined)
    }
  }
}

/** Goes on with a conversation that `save` wrote. Throws an `InternVLError` when the text is none. */
export const restoreChat = (
  internvl: InternVLCheckpoint,
  saved: string,
  options: Omit<ChatOptions, 'history'> = {}
): ChatSession => chat(internvl, { ...options, history: getOrThrow(restoreHistory(saved)) })
