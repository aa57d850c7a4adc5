import type { ImageSource } from '../../processors/image/image.js'
import type { Size } from '../../processors/image/resize.js'
import type { Grid } from '../../processors/image/tiling.js'
import type { Messages, VideoSource } from '../../processors/text/messages.js'
import type { LoadOptions } from '../checkpoint/load.js'
import type { FinishReason } from '../decoding/stopping.js'
import type { ExplainOptions } from '../explain/explain.js'
import type { ExplainMethod } from '../explain/methods.js'
import type { EngineInfo, EngineStats } from './engine-stats.js'
import type { RequestOptions } from './plain-options.js'

export type { EngineInfo, EngineState, EngineStats, PrefixCacheSize, ProcessStats } from './engine-stats.js'
export type { RequestOptions } from './plain-options.js'

/** A logits processor by name: `name` is a key of the `logitsProcessors` that a processor module exports, `data` is given to it. */
export interface NamedProcessor {
  readonly name: string
  readonly data?: unknown
}

/** Options of `createEngine`: those of `load`, and the limits of the engine. */
export interface CreateEngineOptions extends Omit<LoadOptions, 'onProgress' | 'onDownload' | 'onRemark' | 'parts'> {
  /** A JavaScript module, by path or URL, that exports the kinds of `custom_parts`; the engine's process imports it. */
  readonly parts?: string | undefined
  /** Rows that are decoded together: an answer is one row, `numReturnSequences: 3` or `numBeams: 3` are three. 8 by default. */
  readonly maxBatch?: number | undefined
  /** Requests that wait for a free row; one more is refused with `QueueFullError`. 64 by default. */
  readonly maxQueue?: number | undefined
  /** Largest size of the keys and values that are kept for later turns, in bytes; 0 keeps none. 512 MiB by default. */
  readonly prefixCacheBytes?: number | undefined
  /** Largest size of the image features that are kept, in bytes; 0 keeps none. 256 MiB by default. */
  readonly featureCacheBytes?: number | undefined
  /** Prompt positions of one forward between two decoding steps of the other rows; 256 by default. */
  readonly prefillChunkSize?: number | undefined
  /** Defaults of every request, over those of the checkpoint. */
  readonly defaults?: RequestOptions | undefined
  /**
   * Modules, by URL or path, that export `logitsProcessors: Record<string, LogitsProcessorFactory>`. They are imported by the engine's
   * process, in which a request names them.
   */
  readonly processorModules?: readonly (string | URL)[] | undefined
  /** Starts after a crash without a finished request in between, after which the engine has failed; 5 by default. */
  readonly maxRestarts?: number | undefined
  /** Milliseconds before the first new start, doubled after each; 200 by default. */
  readonly restartBackoff?: number | undefined
}

/** One request. It has `messages`, or `prompt`, or `promptIds`. */
export interface EngineRequest {
  /** A conversation with its images and videos as paths, URLs, data URLs or bytes. */
  readonly messages?: Messages | undefined
  /** A rendered prompt with the images and videos of its placeholders, in order. */
  readonly prompt?:
    | { readonly text: string; readonly images?: readonly ImageSource[]; readonly videos?: readonly VideoSource[] }
    | undefined
  /** Token ids of a prompt without images. */
  readonly promptIds?: readonly number[] | undefined
  readonly options?: RequestOptions | undefined
  /** Applied in order, before temperature, top-k and top-p. */
  readonly logitsProcessors?: readonly NamedProcessor[] | undefined
  /** Aborting is the same as `handle.abort()`. */
  readonly signal?: AbortSignal | undefined
}

/** A token, its text alone, and its log-probability from the unprocessed logits. */
export interface TokenLogprob {
  readonly token: number
  readonly text: string
  readonly logprob: number
}

/** Numbers of tokens of a prompt. `text + image = total`, `reused + computed = total`. */
export interface PromptUsage {
  readonly total: number
  readonly text: number
  /** Tokens of images and videos. */
  readonly image: number
  /** Tokens whose keys and values came from the prefix cache. */
  readonly reused: number
  readonly computed: number
  /** Tiles of all images, and frames of all videos. */
  readonly tiles: number
}

export interface Usage {
  readonly prompt: PromptUsage
  /** Tiles that the vision encoder computed; features of the others were cached, or their tokens were reused. */
  readonly encodedTiles: number
  /** New tokens of all answers, end tokens included. */
  readonly newTokens: number
}

/** Durations in seconds. */
export interface EngineTimings {
  /** Until a row was free. */
  readonly queue: number
  /** Reading, decoding and tiling of images; tokenizing. */
  readonly prepare: number
  /** From the prepared prompt to its first token: image features and prefill. */
  readonly prefill: number
  /** From the first token to the last. */
  readonly decode: number
  /** From the request to its first token; to its end if it has no token. */
  readonly firstToken: number
  readonly total: number
}

/** One answer to a request. */
export interface Choice {
  /** Without special tokens and without the stop string. */
  readonly text: string
  readonly tokens: readonly number[]
  readonly finishReason: FinishReason
  /** Of each token, with `outputLogprobs` or `topLogprobs`. */
  readonly logprobs?: readonly TokenLogprob[]
  /** The most probable tokens at each step, with `topLogprobs`. */
  readonly topLogprobs?: readonly (readonly TokenLogprob[])[]
  /** Beam search only. */
  readonly score?: number
}

export interface EngineResult {
  readonly choices: readonly Choice[]
  readonly usage: Usage
  readonly timings: EngineTimings
}

/** A prompt is prepared: its tokens are counted. */
export interface StartedEvent {
  readonly type: 'started'
  readonly prompt: PromptUsage
}

/** A new token. `text` is empty while a character or a possible stop string is incomplete; the texts joined are the answer. */
export interface TokenEvent {
  readonly type: 'token'
  /** Index of the answer, 0 unless `numReturnSequences` is more than 1. */
  readonly choice: number
  readonly token: number
  readonly text: string
  readonly logprob?: TokenLogprob
  readonly topLogprobs?: readonly TokenLogprob[]
}

/** An answer has ended; `text` is its rest, usually empty. */
export interface ChoiceEvent {
  readonly type: 'choice'
  readonly choice: number
  readonly text: string
  readonly finishReason: FinishReason
  readonly score?: number
}

/** All answers have ended; the last event of a request. */
export interface FinishedEvent {
  readonly type: 'finished'
  readonly usage: Usage
  readonly timings: EngineTimings
}

export type EngineEvent = StartedEvent | TokenEvent | ChoiceEvent | FinishedEvent

/**
 * A request that was accepted. Iterate over its events, or await `result()`, or both. Leaving the iteration early (`break`) aborts
 * the request. Iteration and `result()` throw an `InputError` or a `RangeError` for the input, and an `EngineError` after a crash.
 */
export interface EngineHandle extends AsyncIterable<EngineEvent> {
  readonly id: string
  /** The whole answer. After an abort the choices have the tokens so far, and the finish reason `aborted`. */
  readonly result: () => Promise<EngineResult>
  /**
   * Ends the request now: its choices finish as `aborted`, without an error. The engine frees the rows after at most one tile or one
   * chunk of the prompt.
   */
  readonly abort: () => void
}

export interface Tokenized {
  readonly ids: readonly number[]
  /** Tokens of images and videos among them. */
  readonly imageTokens: number
}

/** Tiles of one image or video of a prompt, as the processor makes them. */
export interface MediaTiling {
  readonly kind: 'image' | 'video'
  /** Tiles of an image with its thumbnail, or frames of a video. */
  readonly tiles: number
  /** Pixels of a tile. */
  readonly tileSize: Size
  /** Tokens of a tile, before a Flash model's router compresses some of them. */
  readonly tokensPerTile: number
  /** Whether the last tile is a thumbnail of the whole image. */
  readonly hasThumbnail: boolean
  /** Upright size of an image in pixels, and the columns and rows of its tiles; undefined for a video. */
  readonly layout?: Size & Grid
}

/** Embeddings of images. */
export interface ImageVectors {
  readonly vectors: readonly (readonly number[])[]
  /** Number of tiles of each image. */
  readonly tiles: readonly number[]
}

/** The request of `GenerationEngine.explain`: a conversation, with the options of `explain` that are plain data. */
export interface EngineExplainRequest
  extends Pick<EngineRequest, 'options'>,
    Pick<ExplainOptions, 'method' | 'token' | 'by' | 'image' | 'answer' | 'cells' | 'steps'> {
  readonly messages: Messages
}

/** The heat maps of an answer as images, at most 512 pixels on the longer side. */
export interface ExplainedImages {
  readonly answer: string
  readonly method: ExplainMethod
  /** Size of the image in pixels. */
  readonly width: number
  readonly height: number
  readonly parts: ReadonlyArray<{
    readonly text: string
    readonly tokens: readonly number[]
    /** JPEG in base64. */
    readonly jpeg: string
  }>
}

/** Options of `close`. */
export interface CloseOptions {
  /** Finishes the accepted requests first (true), or aborts them (false, the default). */
  readonly drain?: boolean
  /** Milliseconds after which draining ends and the rest is aborted; no limit by default. */
  readonly timeout?: number
}

/** A model in a process of its own that answers many requests at once. */
export interface GenerationEngine extends AsyncDisposable {
  /**
   * Accepts a request and returns at once. Throws a `QueueFullError` if `maxQueue` requests wait, an `EngineClosedError` after
   * `close()`, an `EngineFailedError` after too many crashes, and a `RangeError` for options that cannot be sent to a process.
   */
  readonly submit: (request: EngineRequest) => EngineHandle
  /** Token ids of a prompt; images are opened, but not decoded. */
  readonly tokenize: (request: Pick<EngineRequest, 'messages' | 'prompt' | 'options'>) => Promise<Tokenized>
  /** The tiles of a conversation's or a prompt's images and videos, none of which is decoded. */
  readonly tiling: (request: Pick<EngineRequest, 'messages' | 'prompt' | 'options'>) => Promise<readonly MediaTiling[]>
  readonly detokenize: (ids: readonly number[], options?: { readonly skipSpecialTokens?: boolean }) => Promise<string>
  /** One vector for each image, the mean of its tiles' pooled embeddings. An abort of `signal` ends the work after at most one chunk of tiles. */
  readonly embed: (images: readonly ImageSource[], options?: RequestOptions, signal?: AbortSignal) => Promise<ImageVectors>
  /**
   * Heat maps of an answer over an image, see `explain`. An abort of `signal` ends the work after at most one forward. `onProgress` is called
   * with the work done and in total, at most about four times a second: first with 0, last with the total, and not after an abort or the end.
   */
  readonly explain: (
    request: EngineExplainRequest,
    signal?: AbortSignal,
    onProgress?: (done: number, total: number) => void
  ) => Promise<ExplainedImages>
  readonly info: EngineInfo
  readonly stats: () => EngineStats
  /** Stops accepting requests, ends the others and then the process. Later calls wait for the same end. */
  readonly close: (options?: CloseOptions) => Promise<void>
}
