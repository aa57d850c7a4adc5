import { generate } from '../../generation/generate.js'
import { load } from '../../generation/load.js'
import { selectEngine } from '../../lib/engines/index.js'
import { tf } from '../../lib/tf.js'

/** What is measured of one engine on one checkpoint; the keys are those of `bench_transformers.py`. Every figure is the best of the runs. */
export interface Measured {
  readonly engine: string
  readonly dtype: string
  readonly tiles?: number
  /** Of the prompt. */
  readonly tokens?: number
  readonly load_s: number
  /** Vision tower and projector, all tiles. */
  readonly vision_s?: number
  /** First token from ready inputs, vision included. */
  readonly prefill_s?: number
  /** Further tokens, one at a time. */
  readonly decode_tokens_per_s?: number
  readonly peak_rss_mb: number
}

export interface MeasureOptions {
  readonly checkpoint: string
  readonly dtype: 'float32'
  readonly tiles: number
  readonly newTokens: number
  readonly runs: number
  /** Load the model, no more. */
  readonly load?: boolean
}

const now = (): number => performance.now() / 1000
const peakMegabytes = (): number => process.resourceUsage().maxRSS / 1024

/** 64 words around the tokens of `tiles` tiles, and noise for pixels. */
const randomInputs = (
  { textConfig, visionConfig, imageTokenId = 0, imageSeqLength }: Awaited<ReturnType<typeof load>>['config'],
  tiles: number
) => {
  const words = Array.from({ length: 64 }, (_, i) => (i * 7919 + 13) % Math.min(600, textConfig.vocabSize))
  const text = words.map((id) => (id === imageTokenId ? 1 : id))
  const ids = [...text.slice(0, 20), ...Array<number>(imageSeqLength * tiles).fill(imageTokenId), ...text.slice(20)]
  const [height, width] = visionConfig.imageSize
  return {
    inputIds: tf.tensor2d([ids], [1, ids.length], 'int32'),
    pixelValues: tf.randomNormal<tf.Rank.R4>([tiles, visionConfig.numChannels, height, width], 0, 1, 'float32', 1)
  }
}

/** Loads the checkpoint and times it in this process. Numbers are read back, so that nothing is left undone when a clock stops. */
export const measure = async (options: MeasureOptions): Promise<Measured> => {
  await selectEngine() // as the script beside has imported torch before its clock runs
  const begun = now()
  const internvl = await load(options.checkpoint)
  const loaded = { engine: internvl.engine.name, dtype: options.dtype, load_s: now() - begun }
  if (options.load) return { ...loaded, peak_rss_mb: peakMegabytes() }
  const inputs = randomInputs(internvl.config, options.tiles)
  let [vision, prefill, decode] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY, 0]
  for (let run = 0; run < options.runs; run++) {
    const start = now()
    tf.tidy(() => internvl.model.imageFeatures(inputs.pixelValues).sum().dataSync())
    vision = Math.min(vision, now() - start)
    const stamps = [now()]
    const count = options.newTokens + 1
    for await (const _ of generate(internvl.model, inputs, { maxNewTokens: count, minNewTokens: 0, eosTokenIds: [] }))
      stamps.push(now())
    prefill = Math.min(prefill, stamps[1]! - stamps[0]!)
    decode = Math.max(decode, (stamps.length - 2) / (stamps.at(-1)! - stamps[1]!))
  }
  const tokens = inputs.inputIds.shape[1]
  return {
    ...loaded,
    tiles: options.tiles,
    tokens,
    vision_s: vision,
    prefill_s: prefill,
    decode_tokens_per_s: decode,
    peak_rss_mb: peakMegabytes()
  }
}
