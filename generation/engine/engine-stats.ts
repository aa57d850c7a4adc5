import type { RequestOptions } from './plain-options.js'

/** The loaded model. */
export interface EngineInfo {
  /** The name that was given, or the folder of the demo model. */
  readonly model: string
  /** Folder of the checkpoint. */
  readonly dir: string
  /** The compute engine, such as `native`. */
  readonly engine: string
  readonly modelType: string
  /** Number of parameters, approximate for quantized weights. */
  readonly parameters: number
  /** Format of most weights in memory: `float32`, `bfloat16`, `int8` or `int4`. */
  readonly precision: string
  /** Positions of prompt and answer. */
  readonly contextLength: number
  readonly vocabSize: number
  /** Options of a request that sets none: those of the checkpoint under `defaults`. */
  readonly defaults: RequestOptions
  readonly eosTokenIds: readonly number[]
  /** Whether the chat template renders `tools`. */
  readonly supportsTools: boolean
  /** Jinja source of the chat template of requests that give none. */
  readonly chatTemplate: string
  readonly imageTokenId: number | undefined
  readonly loadSeconds: number
}

/** `starting` again after a crash; `failed` after too many of them; `closing` and `closed` after `close()`. */
export type EngineState = 'starting' | 'ready' | 'failed' | 'closing' | 'closed'

/** Counters since `createEngine`, and sizes now. */
export interface EngineStats {
  readonly state: EngineState
  /** Process id of the child; undefined while there is none. */
  readonly pid: number | undefined
  readonly restarts: number
  /** Requests with the model, and requests that wait. */
  readonly running: number
  readonly waiting: number
  /** Rows that running requests take, of `maxBatch`. */
  readonly usedRows: number
  readonly maxBatch: number
  readonly maxQueue: number
  readonly requests: {
    readonly accepted: number
    readonly refused: number
    readonly finished: number
    readonly aborted: number
    readonly failed: number
  }
  readonly tokens: { readonly prompt: number; readonly image: number; readonly reused: number; readonly new: number }
  /** Sizes reported by the process, at most a second old while it works; undefined before the first report. */
  readonly process: ProcessStats | undefined
}

/** Size of the prefix cache. */
export interface PrefixCacheSize {
  readonly entries: number
  readonly bytes: number
  readonly tensors: number
}

/** Sizes of the process of the model. */
export interface ProcessStats {
  /** Rows in the decoding batch, and positions of the longest. */
  readonly rows: number
  readonly positions: number
  /** Forward steps of decoding and their rows: `decodedRows / steps` is the mean batch size. */
  readonly steps: number
  readonly decodedRows: number
  /** Pieces of other work between the steps: chunks of prompts, tiles, steps of beam searches. */
  readonly turns: number
  readonly encodedTiles: number
  readonly prefixCache: PrefixCacheSize
  readonly featureCache: { readonly entries: number; readonly bytes: number }
  /** Tensors and bytes beyond those of the loaded model and of the prefix cache. */
  readonly tensors: number
  readonly tensorBytes: number
  /** Resident memory in bytes. */
  readonly rss: number
}
