import assert from 'node:assert/strict'
import { getOrThrow } from '../../../lib/error.js'
import type { Weight } from '../../../lib/nn/linear.js'
import { initParams, namedParameters } from '../../../lib/params.js'
import { tf } from '../../../lib/tf.js'
import { parseConfig } from '../../../models/config/parse-config.js'
import type { DecoderParams } from '../../../models/decoders/decoder-params.js'
import { decoderFor } from '../../../models/decoders/index.js'
import type { Qwen2Config, qwen2Decoder } from '../../../models/decoders/qwen2.js'
import type { Qwen3Config, qwen3Decoder } from '../../../models/decoders/qwen3.js'
import { internVL } from '../../../models/internvl/internvl.js'

/** Compiles only if `A` is assignable to `B`. */
const assignable = <A extends B, B>(): [A?, B?] => []

type ParamsOf<D extends (c: never) => { readonly apply: (params: never) => unknown }> = Parameters<ReturnType<D>['apply']>[0]

describe('parameter trees', () => {
  it('a decoder declares the typed paths', () => {
    assignable<ParamsOf<typeof qwen2Decoder>, DecoderParams>()
    assignable<ParamsOf<typeof qwen3Decoder>, DecoderParams>()
    assignable<Qwen2Config | Qwen3Config, object>()
  })

  it('the path of a weight in the whole model is typed, and equals the checkpoint key', () =>
    tf.tidy(() => {
      const text_config = { model_type: 'qwen2', hidden_size: 8, num_attention_heads: 2, num_key_value_heads: 1, vocab_size: 5, intermediate_size: 3, num_hidden_layers: 1, pad_token_id: 0 } // biome-ignore format: one line
      const vision_config = { hidden_size: 4, num_attention_heads: 1, num_hidden_layers: 1, intermediate_size: 3, image_size: 8, patch_size: 2 } // biome-ignore format: one line
      const config = getOrThrow(parseConfig({ model_type: 'internvl', text_config, vision_config }))
      const params = initParams(internVL(config))
      const weight: Weight = params.model.language_model.layers[0]!.mlp.gate_proj.weight
      const byKey = new Map(namedParameters(params))
      assert.equal(byKey.get('model.language_model.layers.0.mlp.gate_proj.weight'), weight)
      const decoder: DecoderParams = initParams(decoderFor(config.textConfig))
      assert.deepEqual(decoder.layers[0]!.self_attn.q_proj.bias?.shape, [8])
      // @ts-expect-error: a decoder layer has no such field
      assert.equal(params.model.language_model.layers[0]!.mlp.gate, undefined)
    }))
})
