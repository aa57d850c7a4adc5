import assert from 'node:assert/strict'
import { getOrThrow } from '../../../lib/error.js'
import { parseConfig } from '../../../models/config/parse-config.js'
import { visionLayerDecay } from '../../../models/internvl/layer-decay.js'

describe('visionLayerDecay', () => {
  const config = getOrThrow(parseConfig({ model_type: 'internvl', vision_config: { num_hidden_layers: 3 } }))

  it('decreases by a constant factor per layer from the last layer to the embeddings, and is 1 outside the tower', () => {
    const factor = visionLayerDecay(config, 0.5)
    const tower = (rest: string) => factor(`model.vision_tower.${rest}`)
    assert.deepEqual(
      [2, 1, 0].map((i) => tower(`encoder.layer.${i}.mlp.fc1.weight`)),
      [1 / 2, 1 / 4, 1 / 8]
    )
    assert.equal(tower('embeddings.cls_token'), 1 / 16)
    assert.deepEqual([tower('layernorm.weight'), factor('model.language_model.layers.0.mlp.up_proj.weight')], [1, 1])
  })

  it('rejects a decay outside (0, 1]', () => {
    for (const decay of [0, 1.1, Number.NaN]) assert.throws(() => visionLayerDecay(config, decay), /at most 1, got/)
  })
})
