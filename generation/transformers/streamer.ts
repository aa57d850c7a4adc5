import { type TextStream, textStream } from '../decoding/text-stream.js'

/** Receiver of the tokens of `generate`: first the prompt, then each token, then the end. */
export interface BaseStreamer {
  put(ids: readonly number[]): void
  end(): void
}

/** A processor or a tokenizer. */
export interface Decoder {
  decode(ids: readonly number[], options?: { readonly skipSpecialTokens?: boolean }): string
}

export interface TextStreamerOptions {
  readonly skipPrompt?: boolean
  readonly skipSpecialTokens?: boolean
}

/**
 * Prints text as soon as its characters are complete; override `onFinalizedText` to process the text differently.
 * Source: `TextStreamer` (transformers 5.24), which holds symbols back until the next space.
 *
 * `await model.generate({ ...inputs, streamer: new TextStreamer(processor, { skipPrompt: true }) })`
 */
export class TextStreamer implements BaseStreamer {
  private stream: TextStream | undefined
  private isPrompt = true

  constructor(
    private readonly tokenizer: Decoder,
    private readonly options: TextStreamerOptions = {}
  ) {}

  put(ids: readonly number[]): void {
    const prompt = this.isPrompt
    this.isPrompt = false
    if (prompt && this.options.skipPrompt) return
    const { skipSpecialTokens = false } = this.options
    this.stream ??= textStream((tokenIds) => this.tokenizer.decode(tokenIds, { skipSpecialTokens }))
    for (const id of ids) this.onFinalizedText(this.stream.push(id), false)
  }

  end(): void {
    this.onFinalizedText(this.stream?.end() ?? '', true)
    this.stream = undefined
    this.isPrompt = true
  }

  /** Called with each piece of text; the last one may be empty. */
  onFinalizedText(text: string, streamEnd: boolean): void {
    process.stdout.write(streamEnd ? `${text}\n` : text)
  }
}
