import { InputError } from '../../../lib/error.js'
import { tf } from '../../../lib/tf.js'
import { type VisionEncoder, visionEncoder } from '../../../models/internvl/vision-encoder.js'
import { encodeThumbnail } from '../../../processors/image/draw.js'
import type { ImageSource } from '../../../processors/image/image.js'
import { limitIssue } from '../../../processors/limits.js'
import type { InternVLCheckpoint } from '../../checkpoint/load.js'
import { tilesPerChunk } from '../../decoding/prefill.js'
import { explain } from '../../explain/explain.js'
import { heatImage } from '../../explain/heat-image.js'
import type { Tiles } from '../../feature-cache.js'
import type {
  EngineExplainRequest,
  EngineRequest,
  ExplainedImages,
  ImageVectors,
  MediaTiling,
  RequestOptions,
  Tokenized
} from '../engine-types.js'
import { type RequestContext, requestOptions } from './request-context.js'

/** The vision encoder of a loaded model, with the same parameters. */
const encoderOf = ({ config, params }: InternVLCheckpoint): VisionEncoder => {
  const module = visionEncoder(config)
  return module.apply(params.model as Parameters<typeof module.apply>[0])
}

/** The parts that all calls share, and those of one call. */
export interface CallContext extends RequestContext {
  readonly signal: AbortSignal
  /** Sends the work done and in total to the engine. */
  readonly sendProgress: (done: number, total: number) => void
}

/** Sum of the pooled embeddings of tiles, `[D]`; one chunk of tiles a turn. Throws the reason of an abort. */
const sumOfTiles = async (
  pooled: VisionEncoder['pooled'],
  { data, shape: [T, C, H, W] }: Tiles,
  pause: () => Promise<void>,
  signal: AbortSignal
): Promise<readonly number[]> => {
  const [chunk, size] = [tilesPerChunk(H, W), C * H * W]
  let sum: readonly number[] = []
  for (let start = 0; start < T; start += chunk) {
    const end = Math.min(T, start + chunk)
    await pause()
    signal.throwIfAborted()
    const pixels = data.subarray(start * size, end * size)
    const vector = tf.tidy(() => pooled(tf.tensor4d(pixels, [end - start, C, H, W])).sum<tf.Tensor1D>(0))
    const values = vector.dataSync()
    vector.dispose()
    sum = Array.from(values, (value, i) => value + (sum[i] ?? 0))
  }
  return sum
}

/** One vector for each image, see `GenerationEngine.embed`. */
const embedImages = async (
  context: CallContext,
  images: readonly ImageSource[],
  options: RequestOptions = {}
): Promise<ImageVectors> => {
  const { internvl, scheduler, prepare, signal } = context
  if (images.length === 0) throw new RangeError('images: the list is empty; give at least one image')
  const merged = requestOptions(context, options) // the engine's limits of media hold here too
  const { pooled } = encoderOf(internvl)
  const checkLimit = (name: 'maxMedia' | 'maxTiles', count: number, what: string): void => {
    const [found] = limitIssue(merged.limits, name, count, 'The input', what)
    if (found) throw new InputError([found])
  }
  checkLimit('maxMedia', images.length, 'images')
  const { pause } = scheduler.turns.join('rotate', signal) // other requests have turns between two chunks
  const vectors: (readonly number[])[] = []
  const tiles: number[] = []
  for (const source of images) {
    signal.throwIfAborted()
    const read = await prepare.image(source, options.maxPatches ?? 1, merged)
    checkLimit(
      'maxTiles',
      tiles.reduce((sum, n) => sum + n, read.shape[0]),
      'tiles'
    )
    const sum = await sumOfTiles(pooled, read, pause, signal)
    vectors.push(sum.map((value) => value / read.shape[0]))
    tiles.push(read.shape[0])
  }
  return { vectors, tiles }
}

/** Heat maps of an answer, see `GenerationEngine.explain`. */
const explainAnswer = async (
  context: CallContext,
  { messages, options, ...asked }: EngineExplainRequest
): Promise<ExplainedImages> => {
  const { internvl, scheduler, signal, sendProgress } = context
  const { pause } = scheduler.turns.join('rotate', signal) // other requests have turns between two forwards
  const { maxNewTokens: most = 64, ...prepare } = requestOptions(context, options)
  const onProgress = (done: number, total: number): Promise<void> => {
    sendProgress(done, total)
    return pause()
  }
  const limited = { ...prepare, ...asked, maxNewTokens: Math.min(64, most), batchSize: 4, signal, onProgress }
  const explanation = await explain(internvl, messages, limited)
  try {
    const { answer, method, image, parts } = explanation
    const images: ExplainedImages['parts'][number][] = []
    for (const part of parts) {
      const jpeg = (await encodeThumbnail(await heatImage(image, part), 512)).toString('base64')
      images.push({ text: part.text, tokens: part.tokens, jpeg })
    }
    return { answer, method, width: image.width, height: image.height, parts: images }
  } finally {
    explanation.dispose()
  }
}

const tokenize = async (
  context: RequestContext,
  { messages, prompt, options }: Pick<EngineRequest, 'messages' | 'prompt' | 'options'>
): Promise<Tokenized> => {
  const ids = await context.prepare.tokenize({ messages, prompt }, requestOptions(context, options))
  const { imageTokenId } = context.internvl.generation
  return { ids, imageTokens: ids.filter((id) => id === imageTokenId).length }
}

/** Calls that the process answers beside requests, by name. */
export const engineCalls = {
  tokenize,
  tiling: (
    context: RequestContext,
    { messages, prompt, options }: Pick<EngineRequest, 'messages' | 'prompt' | 'options'>
  ): Promise<readonly MediaTiling[]> => context.prepare.tiling({ messages, prompt }, requestOptions(context, options)),
  detokenize: async ({ internvl }: RequestContext, ids: readonly number[], options?: { readonly skipSpecialTokens?: boolean }) =>
    internvl.processor.decode(ids, options),
  embed: embedImages,
  explain: explainAnswer
} as const
