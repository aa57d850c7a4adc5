import type { GenerateInputs } from '../../../generation/decoding/generate.js'
import { type Batch, batchOf } from '../../../generation/train/data/collate.js'
import { ignored } from '../../../lib/nn/losses/cross-entropy.js'
import { tf } from '../../../lib/tf.js'
import type { InternVLConfig } from '../../../models/config/parse-config.js'

const lastWord = 600 // ids of plain words in every vocabulary at hand, as in bench_transformers.py

/** So many ids that are words, the same ones each time; no picture among them. */
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

/** `tiles` of noise, `[T, C, H, W]`. */
export const noise = ({ visionConfig: { imageSize, numChannels } }: InternVLConfig, tiles: number): tf.Tensor4D =>
  tf.randomNormal([tiles, numChannels, ...imageSize], 0, 1, 'float32', 1)

/** 64 words around the tokens of `tiles` tiles, and noise for pixels. */
export const pictureInputs = (config: InternVLConfig, tiles: number): GenerateInputs => {
  const text = words(config, 64)
  const picture = Array<number>(config.imageSeqLength * tiles).fill(config.imageTokenId ?? 0)
  return { inputIds: idsOf([[...text.slice(0, 20), ...picture, ...text.slice(20)]]), pixelValues: noise(config, tiles) }
}

/** `rows` prompts of `length` words each, no two alike. */
export const textInputs = (config: InternVLConfig, length: number, rows = 1): GenerateInputs => ({
  inputIds: idsOf(Array.from({ length: rows }, (_, row) => words(config, length, row)))
})

/** Rows to learn: a tile among 80 words, of which the last 40 are learned. As in bench_peft.py. */
export const lesson = (config: InternVLConfig, rows: number): Batch => {
  const { imageSize, numChannels } = config.visionConfig
  const pixels = numChannels * imageSize[0] * imageSize[1]
  const picture = Array<number>(config.imageSeqLength).fill(config.imageTokenId ?? 0)
  const samples = Array.from({ length: rows }, (_, row) => {
    const text = words(config, 80, row)
    const ids = Int32Array.from([...text.slice(0, 20), ...picture, ...text.slice(20)])
    return {
      id: `${row}`,
      ids,
      labels: ids.map((id, i) => (i < ids.length - 40 ? ignored : id)),
      pixels: Float32Array.from({ length: pixels }, (_, i) => Math.sin(row * pixels + i)),
      tileSize: { height: imageSize[0], width: imageSize[1] },
      numPatches: [1]
    }
  })
  return batchOf(samples, { padId: 0 })
}
