import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import { getOrThrow, orThrow } from '../../lib/error.js'
import { availableMemory } from '../../lib/memory.js'
import { sizeOf } from '../../lib/shape.js'
import { type InspectedModel, inspectModel } from '../../models/checkpoint/inspect-model.js'
import { workingBytes } from '../../models/checkpoint/memory-check.js'
import { loadProcessor, type PrepareOptions } from '../../processors/processor.js'
import type { ContentItem, Messages } from '../../processors/text/messages.js'
import { trainConfig } from '../train/train-config.js'
import { trainedShapes } from '../train/trainable.js'
import type { MachineSpeed } from './machine-speed.js'
import {
  activationBytes,
  activeParameters,
  cacheBytes,
  leavesOf,
  promptFlops,
  tileFlops,
  trainingActivationBytes
} from './model-costs.js'

export interface TrainingPlanOptions {
  /** Rows of a batch: 1 by default. */
  readonly batchSize?: number
  /** Rank of LoRA; without it all weights are trained. */
  readonly loraRank?: number
  /** Tokens of a packed row; without it a row is one sample of the request. */
  readonly packing?: number
  readonly gradientCheckpointing?: boolean
}

export interface PlanOptions extends PrepareOptions {
  readonly images?: readonly string[]
  readonly videos?: readonly string[]
  readonly prompt?: string
  /** Tokens to generate: 100 by default. */
  readonly maxNewTokens?: number
  /** Requests that run together: 1 by default. */
  readonly batchSize?: number
  /** Bytes of memory; default: the available memory. */
  readonly memory?: number
  /** Measured speed, `measureSpeed()`; without it the plan has no times. */
  readonly speed?: MachineSpeed
  readonly train?: TrainingPlanOptions
}

/** An image or video of the request. */
export interface PlannedMedia {
  readonly source: string
  readonly kind: 'image' | 'video'
  /** Tiles with the thumbnail, or frames. */
  readonly tiles: number
  readonly columns?: number
  readonly rows?: number
  readonly tokens: number
}

/** The largest numbers that fit the positions and the memory; 0 where not even one fits. */
export interface Largest {
  readonly tiles: number
  readonly frames: number
  readonly rows: number
}

/** Bytes and seconds of the request in a precision. */
export interface PrecisionPlan {
  readonly name: string
  /** Weights by part, KV cache, activations, and the memory of the process. */
  readonly parts: Readonly<Record<string, number>>
  readonly bytes: number
  readonly fits: boolean
  readonly largest: Largest
  /** Estimates: the vision tower and the prompt by float32 products, further tokens by the bytes of the weights that each reads. */
  readonly seconds?: { readonly firstToken: number; readonly token: number; readonly total: number }
}

export interface TrainingPlan {
  readonly trainedParameters: number
  /** Weights, trained copy, gradients, optimizer state, activations, and the memory of the process. */
  readonly parts: Readonly<Record<string, number>>
  readonly bytes: number
  readonly fits: boolean
  /** The largest number of rows of a batch that fits. */
  readonly largestBatch: number
  /** Estimate: a forward pass and twice as much for the backward pass. */
  readonly secondsPerStep?: number
}

/** A request before it runs. */
export interface Plan {
  readonly media: readonly PlannedMedia[]
  readonly tiles: number
  /** Tokens of the prompt, with those of images. */
  readonly promptTokens: number
  readonly imageTokens: number
  readonly positions: number
  /** Positions after the prompt and `maxNewTokens`; negative where the request is too long. */
  readonly positionsLeft: number
  readonly memory: number
  readonly precisions: readonly PrecisionPlan[]
  readonly training?: TrainingPlan
}

const sum = (parts: Readonly<Record<string, number>>): number => Object.values(parts).reduce((total, bytes) => total + bytes, 0)

/** The largest n from 0 to `limit` for which `fits(n)`, where smaller numbers fit if larger ones do. */
const largest = (limit: number, fits: (n: number) => boolean): number => {
  let [low, high] = [0, Math.max(0, Math.floor(limit))]
  while (low < high) {
    const middle = Math.ceil((low + high) / 2)
    if (fits(middle)) low = middle
    else high = middle - 1
  }
  return low
}

const messagesOf = ({ images = [], videos = [], prompt = 'Describe the image.' }: PlanOptions): Messages => {
  const content: readonly ContentItem[] = [
    ...images.map((path) => ({ type: 'image', path }) as const),
    ...videos.map((path) => ({ type: 'video', path }) as const),
    { type: 'text', text: prompt }
  ]
  return [{ role: 'user', content }]
}

/** Bytes of a request of some rows: weights by part, KV cache, activations, process. */
const requestParts = (model: InspectedModel, weights: Readonly<Record<string, number>>, name: string, rows: number, tiles: number, tokens: number, newTokens: number) => ({
  ...weights,
  cache: rows * (tokens + newTokens) * cacheBytes(model, name),
  activations: activationBytes(model, rows * tiles, rows * tokens),
  process: workingBytes
}) // biome-ignore format: one record

interface Request {
  readonly model: InspectedModel
  readonly tiles: number
  readonly tokens: number
  readonly newTokens: number
  readonly rows: number
  readonly memory: number
  readonly options: PlanOptions
}

const precisionPlan = ({ model, tiles, tokens, newTokens, rows, memory, options }: Request) => {
  const { imageSeqLength, textConfig } = model.config
  return ({ name, parts: weights }: InspectedModel['partNeeds'][number]): PrecisionPlan => {
    const needed = (rows: number, tiles: number, tokens: number) =>
      sum(requestParts(model, weights, name, rows, tiles, tokens, newTokens))
    const parts = requestParts(model, weights, name, rows, tiles, tokens, newTokens)
    const text = tokens - tiles * imageSeqLength
    const spare = textConfig.maxPositionEmbeddings - text - newTokens
    /** Tiles of one image, or frames of one video with the words before each frame. */
    const fitting = (perTile: number) => largest(spare / perTile, (n) => needed(1, n, text + n * perTile) <= memory)
    const { speed } = options
    const { decoder = 0, head = 0, embeddings = 0 } = activeParameters(model)
    const read = (4 * (decoder + (head || embeddings)) * sum(weights)) / model.float32Bytes
    const firstToken = speed ? (rows * (tiles * tileFlops(model) + promptFlops(model, tokens))) / speed.flops : 0
    const token = speed ? (read + rows * tokens * cacheBytes(model, name)) / speed.bytesPerSecond : 0
    return {
      name,
      parts,
      bytes: sum(parts),
      fits: sum(parts) <= memory,
      largest: {
        tiles: fitting(imageSeqLength),
        frames: fitting(imageSeqLength + 8), // "Frame12: <img>…</img>\n"
        rows: spare < tiles * imageSeqLength ? 0 : largest(4096, (n) => needed(n, tiles, tokens) <= memory)
      },
      ...(speed ? { seconds: { firstToken, token, total: firstToken + newTokens * token } } : {})
    }
  }
}

/** Number of parameters that a training trains, with LoRA's matrices. */
const trainedParameters = (model: InspectedModel, { loraRank }: TrainingPlanOptions): number => {
  const shapes = new Map(leavesOf(model.tree).map(({ path, shape = [] }) => [path, shape]))
  const settings = { output: '.', data: '.', ...(loraRank === undefined ? {} : { lora: { rank: loraRank } }) }
  return pipe(
    trainConfig(settings),
    E.chain((config) => trainedShapes(shapes, config)),
    E.map((found) => [...found.values()].reduce((n, shape) => n + sizeOf(shape), 0)),
    getOrThrow
  )
}

const trainingPlan = ({ model, tiles, tokens, memory, options }: Request, train: TrainingPlanOptions): TrainingPlan => {
  const { batchSize = 1, packing, gradientCheckpointing = false } = train
  const [rowTokens, samples] =
    packing === undefined ? [tokens, 1] : [packing, Math.max(1, Math.floor(packing / Math.max(1, tokens)))]
  const trained = trainedParameters(model, train)
  const partsFor = (rows: number) => ({
    weights: model.float32Bytes,
    trained: 4 * trained, // a copy: the loaded weights stay as they are
    gradients: 4 * trained,
    optimizer: 8 * trained,
    activations: trainingActivationBytes(model, rows * samples * tiles, rows * rowTokens, gradientCheckpointing),
    process: workingBytes
  })
  const parts = partsFor(batchSize)
  const forward = samples * tiles * tileFlops(model) + promptFlops(model, rowTokens)
  return {
    trainedParameters: trained,
    parts,
    bytes: sum(parts),
    fits: sum(parts) <= memory,
    largestBatch: largest(4096, (rows) => sum(partsFor(rows)) <= memory),
    ...(options.speed ? { secondsPerStep: (3 * batchSize * forward) / options.speed.flops } : {})
  }
}

/**
 * Plans a request, and a training, without reading weights: tiles, tokens, positions, memory by part and precision, largest numbers that fit,
 * and times where a measured speed is given. Images and videos are opened, not decoded. Throws an `InternVLError` for a folder, an image or a
 * video that cannot be read.
 *
 * `const { precisions } = await plan('InternVL3-1B-hf', { images: ['photo.jpg'], maxPatches: 12 })`
 */
export const plan = async (dir: string, options: PlanOptions = {}): Promise<Plan> => {
  const { images = [], videos = [], prompt, maxNewTokens = 100, batchSize = 1, memory, speed, train, ...prepare } = options
  const model = await orThrow(inspectModel(dir))
  const processor = await orThrow(loadProcessor(dir))
  const { ids, visuals } = await orThrow(processor.encodeBatch([messagesOf(options)], prepare))
  const { imageSeqLength, textConfig } = model.config
  const media = visuals.map(
    ({ kind, tiles, layout }, i): PlannedMedia => ({
      source: [...images, ...videos][i]!,
      kind,
      tiles,
      ...(layout ? { columns: layout.columns, rows: layout.rows } : {}),
      tokens: tiles * imageSeqLength
    })
  )
  const [tokens, tiles] = [ids[0]!.length, visuals.reduce((n, visual) => n + visual.tiles, 0)]
  const bytes = memory ?? (await availableMemory()).bytes
  const request = { model, tiles, tokens, newTokens: maxNewTokens, rows: batchSize, memory: bytes, options }
  return {
    media,
    tiles,
    promptTokens: tokens,
    imageTokens: tiles * imageSeqLength,
    positions: textConfig.maxPositionEmbeddings,
    positionsLeft: textConfig.maxPositionEmbeddings - tokens - maxNewTokens,
    memory: bytes,
    precisions: model.partNeeds.map(precisionPlan(request)),
    ...(train ? { training: trainingPlan(request, train) } : {})
  }
}
