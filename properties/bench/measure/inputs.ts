import type { GenerateInputs } from '../../../generation/decoding/generate.js'
import { type Batch, collate } from '../../../generation/train/data/collate.js'
import { ignoreIndex } from '../../../lib/nn/losses/cross-entropy.js'
import { tf } from '../../../lib/tf.js'
import type { InternVLConfig } from '../../../models/config/parse-config.js'

const lastWord = 600 // ids below are ordinary words in the vocabularies of all measured models, as in bench_transformers.py

/** `length` word ids, the same on every call, without image tokens. */
const words = ({ textConfig, imageTokenId }: InternVLConfig, length: number, row = 0): readonly number[] =>
  Array.from({ length }, (_, i) => ((i + row) * 7919 + 13) % Math.min(lastWord, textConfig.vocabSize)).map((id) =>
    id === imageTokenId ? 1 : id
  )

const idsOf = (rows: ReadonlyArray<readonly number[]>): tf.Tensor2D =>
  tf.tensor2d(
    rows.map((row) => [...row]),
    [rows.length, rows[0]!.length],
    'int32'
  )

/** Noise as pixel values, `[T, C, H, W]`. */
export const noise = ({ visionConfig: { imageSize, numChannels } }: InternVLConfig, tiles: number): tf.Tensor4D =>
  tf.randomNormal([tiles, numChannels, ...imageSize], 0, 1, 'float32', 1)

/** A prompt of 64 words and the image tokens of `tiles` tiles, with noise as pixel values. */
export const imageInputs = (config: InternVLConfig, tiles: number): GenerateInputs => {
  const text = words(config, 64)
  const imageTokens = Array<number>(config.imageSeqLength * tiles).fill(config.imageTokenId ?? 0)
  return { inputIds: idsOf([[...text.slice(0, 20), ...imageTokens, ...text.slice(20)]]), pixelValues: noise(config, tiles) }
}

/** `rows` different prompts of `length` words. */
export const textInputs = (config: InternVLConfig, length: number, rows = 1): GenerateInputs => ({
  inputIds: idsOf(Array.from({ length: rows }, (_, row) => words(config, length, row)))
})

/** A training batch: every row has one tile and 80 words, of which the last 40 are supervised. As in bench_peft.py. */
export const trainingBatch = (config: InternVLConfig, rows: number): Batch => {
  const { imageSize, numChannels } = config.visionConfig
  const pixels = numChannels * imageSize[0] * imageSize[1]
  const imageTokens = Array<number>(config.imageSeqLength).fill(config.imageTokenId ?? 0)
  const samples = Array.from({ length: rows }, (_, row) => {
    const text = words(config, 80, row)
    const ids = Int32Array.from([...text.slice(0, 20), ...imageTokens, ...text.slice(20)])
    return {
      id: `${row}`,
      ids,
      labels: ids.map((id, i) => (i < ids.length - 40 ? ignoreIndex : id)),
      pixels: Float32Array.from({ length: pixels }, (_, i) => Math.sin(row * pixels + i)),
      tileSize: { height: imageSize[0], width: imageSize[1] },
      numPatches: [1]
    }
  })
  return collate(samples, { padId: 0 })
}
