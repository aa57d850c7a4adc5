import assert from 'node:assert/strict'
import fc from 'fast-check'
import { getOrThrow } from '../../../lib/error.js'
import { ShapeError } from '../../../lib/shape.js'
import { tf } from '../../../lib/tf.js'
import { parseConfig } from '../../../models/config/parse-config.js'
import { type InternVL, internVL, mergeFeatures } from '../../../models/internvl/internvl.js'
import { count, randomParams, randomTensor, seed } from '../../arbitraries/tensor.js'
import { check } from '../../laws/check.js'
import { assertClose } from '../../laws/close.js'

const image = 9
const tokensPerTile = 4

/** A tiny whole model; tiles are of 8 pixels a side. */
const made = (modelType: string, tied: boolean, seed: number): InternVL => {
  const config = parseConfig({
    model_type: 'internvl',
    image_token_id: image,
    tie_word_embeddings: tied,
    vision_config: {
      hidden_size: 4,
      intermediate_size: 5,
      num_hidden_layers: 1,
      num_attention_heads: 2,
      image_size: 8,
      patch_size: 2
    },
    text_config: {
      model_type: modelType,
      vocab_size: 11,
      hidden_size: 8,
      intermediate_size: 7,
      moe_intermediate_size: 3,
      num_experts: 3,
      num_experts_per_tok: 2,
      num_hidden_layers: 2,
      num_attention_heads: 2,
      num_key_value_heads: 1,
      head_dim: 4,
      rope_parameters: { rope_type: 'default' }
    }
  })
  const module = internVL(getOrThrow(config))
  return module.apply(randomParams(module, seed))
}

/** Rows of one length, with 0 to 2 images each between other tokens. */
const batches = fc
  .record({ images: fc.array(fc.nat(2), { minLength: 1, maxLength: 2 }), words: count(4), seed })
  .map(({ images, words, seed }) => {
    const length = tokensPerTile * Math.max(...images) + words
    const rows = images.map((n, row) =>
      Array.from({ length }, (_, i) => (i > 0 && i <= tokensPerTile * n ? image : (seed + row + i) % image))
    )
    return { rows, tiles: images.reduce((a, b) => a + b), seed }
  })

const ids = (rows: readonly (readonly number[])[]) => tf.tensor2d(rows as number[][], undefined, 'int32')
const tilesOf = (count: number, seed: number) => randomTensor<tf.Tensor4D>([count, 3, 8, 8], seed)
const kinds = fc.record({
  modelType: fc.constantFrom('qwen2', 'qwen3', 'llama', 'phi3', 'qwen3_moe', 'gpt_oss'),
  tied: fc.boolean(),
  input: batches
})
const withImages = kinds.filter(({ input }) => input.tiles > 0)

describe('internVL', () => {
  it('a forward leaves its logits and nothing else, with images and without', () =>
    check(kinds, ({ modelType, tied, input: { rows, tiles, seed } }) => {
      const [net, inputIds] = [made(modelType, tied, seed), ids(rows)]
      const pixelValues = tiles ? tilesOf(tiles, seed) : undefined
      const before = tf.memory().numTensors
      const { logits } = net({ inputIds, pixelValues })
      assert.equal(tf.memory().numTensors, before + 1)
      assert.deepEqual(logits.shape, [rows.length, rows[0]!.length, 11])
    }))

  it('precomputed features, the last logits alone, and logits of chosen positions equal those of the full forward', () =>
    check(withImages, ({ modelType, tied, input: { rows, tiles, seed } }) => {
      const [net, inputIds, pixelValues] = [made(modelType, tied, seed), ids(rows), tilesOf(tiles, seed)]
      const { logits } = net({ inputIds, pixelValues })
      assertClose(net({ inputIds, imageFeatures: net.imageFeatures(pixelValues) }).logits, logits)
      const last = net({ inputIds, pixelValues }, { logitsToKeep: 1 }).logits
      assertClose(last, logits.slice([0, rows[0]!.length - 1, 0], [-1, 1, -1]))
      const positions = [rows.flat().length - 1, 0]
      const some = net({ inputIds, pixelValues }, { logitsAt: positions }).logits
      assertClose(some, tf.gather(logits.reshape([-1, 11]), positions).reshape([1, 2, 11]))
    }))

  it('router logits, on request: one matrix for every layer of experts', () =>
    check(kinds, ({ modelType, tied, input: { rows, tiles, seed } }) => {
      const net = made(modelType, tied, seed)
      const pixelValues = tiles ? tilesOf(tiles, seed) : undefined
      const { routerLogits = [] } = net({ inputIds: ids(rows), pixelValues }, { outputRouterLogits: true })
      const experts = ['qwen3_moe', 'gpt_oss'].includes(modelType) ? 3 : undefined
      const expected = experts ? [1, 2].map(() => [rows.length * rows[0]!.length, experts]) : []
      assert.deepEqual(
        routerLogits.map(({ shape }) => shape),
        expected
      )
    }))
})

describe('mergeFeatures', () => {
  it('puts features at the positions of image tokens, in order, and leaves the others', () =>
    check(batches, ({ rows, tiles, seed }) => {
      const embeds = randomTensor<tf.Tensor3D>([rows.length, rows[0]!.length, 2], seed)
      const features = randomTensor<tf.Tensor3D>([tiles, tokensPerTile, 2], seed + 1)
      const merged = (mergeFeatures(embeds, ids(rows), features, image).reshape([-1, 2]) as tf.Tensor2D).arraySync()
      const original = (embeds.reshape([-1, 2]) as tf.Tensor2D).arraySync()
      const rowsOfFeatures = (features.reshape([-1, 2]) as tf.Tensor2D).arraySync()
      let next = 0
      const expected = rows.flat().map((id, i) => (id === image ? rowsOfFeatures[next++] : original[i]))
      assert.deepEqual(merged, expected)
    }))

  it('rejects different numbers of tokens and features, and names both', () =>
    check(fc.tuple(batches, count(2)), ([{ rows, tiles, seed }, more]) => {
      const embeds = randomTensor<tf.Tensor3D>([rows.length, rows[0]!.length, 2], seed)
      const features = tf.zeros<tf.Rank.R3>([tiles + more, tokensPerTile, 2])
      assert.throws(
        () => mergeFeatures(embeds, ids(rows), features, image),
        (error) =>
          error instanceof ShapeError &&
          error.message.includes(`${tiles * tokensPerTile} image tokens`) &&
          error.message.includes(`${(tiles + more) * tokensPerTile} image features`)
      )
    }))
})
