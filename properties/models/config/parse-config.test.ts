import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { getOrThrow, type Issues } from '../../../lib/error.js'
import { type InternVLConfig, parseConfig, readConfig } from '../../../models/config/parse-config.js'
import { hfJson, originalJson, originalOf } from '../../arbitraries/config.js'

type Json = Record<string, unknown>
const parsed = (json: unknown): InternVLConfig => getOrThrow(parseConfig(json))
const issuesOf = (json: unknown): Issues => {
  const result = parseConfig(json, 'x/config.json')
  assert.equal(result._tag, 'Left', 'expected errors')
  return (result as { left: Issues }).left
}
const paths = (json: unknown): readonly string[] => issuesOf(json).map(({ path }) => String(path))

/** A copy with `value` at a dotted path. */
const withField = (json: Json, path: string, value: unknown): Json => {
  const [key, ...rest] = path.split('.') as [string, ...string[]]
  return { ...json, [key]: rest.length ? withField(json[key] as Json, rest.join('.'), value) : value }
}

/** Paths of fields with one kind, by a value that is never valid. */
const wrong: Readonly<Record<string, readonly unknown[]>> = {
  downsample_ratio: ['0.5', 0, -1, null],
  image_seq_length: ['256', 0, 1.5],
  image_token_id: [-1, 'x', null],
  model_type: ['llava', 7, 'constructor'],
  projector_hidden_act: ['gelu7', 1],
  tie_word_embeddings: ['yes', 1],
  dtype: ['int4', 16],
  vision_feature_layer: ['last', [1, 'x'], 1.5],
  vision_feature_select_strategy: ['cls', true],
  'vision_config.hidden_size': ['1024', -4, null],
  'vision_config.image_size': ['448', [448], [448, 0]],
  'vision_config.norm_type': ['batch_norm', 3],
  'vision_config.layer_norm_eps': ['1e-6', 0],
  'vision_config.use_qk_norm': [1, 'false'],
  'text_config.hidden_size': [89.6, '896'],
  'text_config.num_hidden_layers': [0, [2]],
  'text_config.rms_norm_eps': ['1e-6', false],
  'text_config.vocab_size': [null, -1],
  'text_config.hidden_act': ['swiglu', 2],
  'text_config.eos_token_id': ['</s>', ['x']],
  'text_config.model_type': ['mamba', 3, 'toString'],
  'text_config.rope_parameters': ['yarn', [1]],
  'text_config.rope_parameters.rope_theta': ['1e6', 0],
  'text_config.rope_parameters.rope_type': ['mrope', 1]
}

describe('config.json', () => {
  it('absent fields have the defaults of Transformers 5.24', async () => {
    const file = new URL('config-defaults.json', import.meta.url)
    const cases: Record<string, { given: Json; full: Json }> = JSON.parse(await readFile(file, 'utf8'))
    for (const [name, { given, full }] of Object.entries(cases))
      assert.deepEqual(parsed({ model_type: 'internvl', ...given }), parsed(full), name)
    const { visionConfig, textConfig } = parsed(cases.empty!.full)
    assert.deepEqual([visionConfig.hiddenSize, visionConfig.imageSize], [1024, [448, 448]])
    assert.deepEqual([textConfig.modelType, textConfig.hiddenSize, textConfig.headDim], ['qwen2', 4096, 128])
  })

  it('every field is parsed to its own value', () => {
    fc.assert(
      fc.property(hfJson, (json) => {
        const { visionConfig: v, textConfig: t, ...c } = parsed(json)
        const { vision_config: vision, text_config: text } = json
        assert.equal(t.modelType, text.model_type)
        assert.deepEqual(
          [t.hiddenSize, t.intermediateSize, t.numHiddenLayers, t.numAttentionHeads, t.numKeyValueHeads, t.vocabSize],
          [
            text.hidden_size,
            text.intermediate_size,
            text.num_hidden_layers,
            text.num_attention_heads,
            text.num_key_value_heads,
            text.vocab_size
          ]
        )
        assert.equal(t.rope.ropeTheta, text.rope_parameters.rope_theta)
        assert.deepEqual(
          [v.hiddenSize, v.attentionBias, v.useQkNorm, v.normType, v.imageSize, v.patchSize],
          [vision.hidden_size, vision.attention_bias, vision.use_qk_norm, vision.norm_type, vision.image_size, [14, 14]]
        )
        assert.deepEqual(
          [c.imageTokenId, c.imageSeqLength, c.visionFeatureLayer, c.tieWordEmbeddings, c.dtype, c.psVersion, c.dialect],
          [
            json.image_token_id,
            json.image_seq_length,
            json.vision_feature_layer,
            json.tie_word_embeddings,
            json.dtype,
            'v2',
            'hf'
          ]
        )
      })
    )
  })

  it('OpenGVLab’s dialect of a model parses to the same configuration as its -hf one', () => {
    fc.assert(
      fc.property(hfJson, (json) => {
        const { original, dialect, imageTokenId, ...rest } = parsed(originalOf(json))
        const { original: none, dialect: hf, imageTokenId: id, ...expected } = parsed(json)
        assert.deepEqual([dialect, hf, none, imageTokenId], ['original', 'hf', undefined, undefined])
        assert.deepEqual(rest, expected)
        assert.deepEqual(original?.imageSize, json.vision_config.image_size)
      })
    )
  })

  it('OpenGVLab’s dialect: defaults, biases of InternLM, and tiles of force_image_size', () => {
    const internlm2 = { architectures: ['InternLM2ForCausalLM'], num_hidden_layers: 1 }
    const c = parsed({ model_type: 'internvl_chat', force_image_size: 448, llm_config: internlm2, vision_config: {} })
    assert.deepEqual([c.visionConfig.hiddenSize, c.visionConfig.imageSize, c.original?.imageSize], [3200, [224, 224], [448, 448]])
    assert.deepEqual([c.psVersion, c.imageSeqLength, c.original?.maxDynamicPatch], ['v1', 256, 6])
    const { modelType, attentionBias, outputBias, mlpBias } = c.textConfig
    assert.deepEqual([modelType, attentionBias, outputBias, mlpBias], ['llama', true, true, false])
    const biases = (llm_config: Json) => {
      const { attentionBias, outputBias, mlpBias } = parsed({ model_type: 'internvl_chat', llm_config }).textConfig
      return [attentionBias, outputBias, mlpBias]
    }
    assert.deepEqual(biases({ model_type: 'internlm2', bias: false }), [false, false, false])
    assert.deepEqual(biases({ model_type: 'internlm3', qkv_bias: true, bias: false }), [true, false, false])
    assert.deepEqual(biases({ architectures: ['InternLM3ForCausalLM'], bias: true }), [false, true, true])
    for (const [name, expected] of [
      ['Qwen2ForCausalLM', 'qwen2'],
      ['Qwen3ForCausalLM', 'qwen3'],
      ['Qwen3MoeForCausalLM', 'qwen3_moe'],
      ['LlamaForCausalLM', 'llama'],
      ['Phi3ForCausalLM', 'phi3'],
      ['GptOssForCausalLM', 'gpt_oss']
    ])
      assert.equal(parsed({ model_type: 'internvl_chat', llm_config: { architectures: [name] } }).textConfig.modelType, expected)
  })

  it('rope_parameters, and rope_theta beside rope_scaling, parse to equal configurations', () => {
    const variants = fc.record({
      factor: fc.integer({ min: 1, max: 9 }),
      theta: fc.integer({ min: 2, max: 1e7 }),
      type: fc.constantFrom('linear', 'dynamic', 'yarn')
    })
    fc.assert(
      fc.property(variants, fc.constantFrom('type', 'rope_type'), ({ factor, theta, type }, key) => {
        const rope = (text_config: Json) => parsed({ model_type: 'internvl', text_config }).textConfig.rope
        const now = rope({ rope_parameters: { rope_type: type, factor, rope_theta: theta } })
        assert.deepEqual(rope({ rope_theta: theta, rope_scaling: { [key]: type, factor } }), now)
        assert.deepEqual([now.ropeType, now.factor, now.ropeTheta], [type, factor, theta])
      })
    )
    assert.deepEqual(paths({ model_type: 'internvl', text_config: { rope_scaling: { type: 'llama3', factor: 8 } } }), [
      'text_config.rope_scaling.low_freq_factor',
      'text_config.rope_scaling.high_freq_factor'
    ])
  })

  it('every field of a wrong kind is an error with path, expected and actual; several together', () => {
    const json = { model_type: 'internvl', vision_config: {}, text_config: { rope_parameters: {} } }
    for (const [path, values] of Object.entries(wrong))
      for (const value of values) {
        const issues = issuesOf(withField(json, path, value))
        assert.deepEqual(
          issues.map((f) => [f._tag, f.path, f.actual, f.file]),
          [['ConfigField', path, value, 'x/config.json']]
        )
        assert.ok(issues[0].message.includes(`x/config.json: ${path} should be ${issues[0].expected}; it is `), issues[0].message)
      }
    const twice = { model_type: 'internvl', text_config: { model_type: 'qwen3', attention_bias: 1 } }
    assert.deepEqual(paths(twice), ['text_config.attention_bias'], 'a field is reported once')
    const several = fc.uniqueArray(fc.constantFrom(...Object.keys(wrong).filter((path) => !/rope|model_type/.test(path))), {
      minLength: 2
    })
    fc.assert(
      fc.property(several, (at) => {
        const broken = at.reduce((json: Json, path) => withField(json, path, wrong[path]![0]), json)
        assert.deepEqual([...paths(broken)].sort(), [...at].sort())
      })
    )
  })

  it('the error of an unknown model_type lists the known ones', () => {
    const [top] = issuesOf({ model_type: 'llava' })
    assert.match(top.message, /model_type should be one of internvl, .*internvl_chat.*; it is "llava"/)
    const [decoder] = issuesOf({ model_type: 'internvl', text_config: { model_type: 'gemma2' } })
    assert.match(
      decoder.message,
      /text_config\.model_type should be one of qwen2, qwen3, qwen3_moe, llama, phi3, gpt_oss.*"gemma2"/
    )
    const [architecture] = issuesOf({ model_type: 'internvl_chat', llm_config: { architectures: ['Gemma2ForCausalLM'] } })
    assert.match(architecture.message, /llm_config\.architectures should be .*Qwen2ForCausalLM.*Gemma2ForCausalLM/)
  })

  it('numbers that contradict each other are errors', () => {
    assert.deepEqual(paths({ model_type: 'internvl', text_config: { num_attention_heads: 6, num_key_value_heads: 4 } }), [
      'text_config.num_attention_heads'
    ])
    assert.deepEqual(paths({ model_type: 'internvl', vision_config: { hidden_size: 10, num_attention_heads: 4 } }), [
      'vision_config.hidden_size'
    ])
    assert.deepEqual(paths({ model_type: 'internvl', text_config: { num_hidden_layers: 3, layer_types: ['full_attention'] } }), [
      'text_config.layer_types'
    ])
    const long = {
      model_type: 'phi3',
      hidden_size: 64,
      num_attention_heads: 4,
      rope_scaling: { type: 'su', short_factor: [1], long_factor: Array(8).fill(1) }
    }
    assert.deepEqual(paths({ model_type: 'internvl', text_config: long }), ['text_config.rope_scaling.short_factor'])
  })

  it('every number has a bound: an error names the field, the value and the bound', () => {
    const nested = (path: string, value: unknown) =>
      withField({ model_type: 'internvl', vision_config: {}, text_config: { rope_parameters: {} } }, path, value)
    const cases: ReadonlyArray<readonly [path: string, values: readonly unknown[], bound: RegExp]> = [
      ['text_config.num_hidden_layers', [3e7, 1e12], /a positive integer, at most 1024; it is (30000000|1000000000000)$/],
      ['vision_config.num_hidden_layers', [3e7, 1e12], /at most 1024/],
      ['text_config.vocab_size', [2 ** 40], /at most 16777216/],
      ['text_config.hidden_size', [2 ** 30], /at most 131072/],
      ['text_config.head_dim', [2 ** 20], /at most 4096/],
      ['text_config.max_position_embeddings', [2 ** 40], /at most 1073741824/],
      ['text_config.eos_token_id', [1e12, [1, 1e12]], /from -2147483647 to 2147483647/],
      ['text_config.attention_dropout', [2, -1], /from 0 to 1/],
      ['text_config.rope_parameters.rope_theta', [1e300], /at most 1000000000000000/],
      ['vision_config.image_size', [1e6, [1e6, 448]], /at most 16384/],
      ['vision_config.patch_size', [449, [14, 449]], /at most image_size, 448 x 448/],
      ['vision_feature_layer', [25, -26, [0, 40]], /from -25 to 24, for the tower has 24 layers/],
      ['downsample_ratio', [2, 1e-9], /from 0\.015625 to 1/],
      ['image_seq_length', [1e9], /at most 1048576/]
    ]
    for (const [path, values, bound] of cases)
      for (const value of values) {
        const issues = issuesOf(nested(path, value))
        assert.deepEqual(
          issues.map((f) => f.path),
          [path]
        )
        assert.match(issues[0].message, bound)
        assert.deepEqual(issues[0].actual, value)
      }
  })

  it('experts for each token are at most the experts, and all experts of a model have a bound', () => {
    const experts = (fields: Json) => ({ model_type: 'internvl', text_config: { model_type: 'qwen3_moe', ...fields } })
    const [perToken] = issuesOf(experts({ num_experts: 4, num_experts_per_tok: 5 }))
    assert.match(perToken.message, /num_experts_per_tok should be .*at most the number of experts, 4; it is 5/)
    const [many] = issuesOf(experts({ num_experts: 4096, num_hidden_layers: 1000 }))
    assert.match(many.message, /num_experts should be .*at most 65 for 1000 layers; it is 4096/)
    for (const json of [
      experts({ num_experts: 128, num_hidden_layers: 94 }),
      { model_type: 'internvl', vision_feature_layer: -25 }
    ])
      parsed(json)
  })

  it('every number of the largest released models is within its bound', () => {
    const text = { model_type: 'qwen3_moe', hidden_size: 4096, num_hidden_layers: 94, num_experts: 128, vocab_size: 151936, rope_theta: 5e6 } // biome-ignore format: one line
    const vision = { hidden_size: 3200, intermediate_size: 12800, num_hidden_layers: 45, num_attention_heads: 25 }
    parsed({ model_type: 'internvl', text_config: text, vision_config: vision })
    parsed({ model_type: 'internvl', text_config: { model_type: 'llama', hidden_size: 16384, num_hidden_layers: 126, intermediate_size: 53248, num_attention_heads: 128, max_position_embeddings: 10485760 } }) // biome-ignore format: one line
  })

  it('a wrong kind anywhere never throws', () => {
    fc.assert(
      fc.property(fc.oneof(hfJson, originalJson), fc.string(), fc.jsonValue(), (json, key, value) => {
        for (const inside of ['', 'text_config.', 'vision_config.', 'llm_config.'])
          if (inside === '' || Object.hasOwn(json, inside.slice(0, -1)))
            parseConfig(withField(json, inside + key.replaceAll('.', ''), value))
        parseConfig(value)
      })
    )
  })

  it('a folder without config.json, or with one that is not JSON, is an error', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'config-'))
    const tag = async () => {
      const result = await readConfig(folder)()
      return result._tag === 'Left' ? [result.left[0]._tag, result.left[0].message.includes(join(folder, 'config.json'))] : []
    }
    assert.deepEqual(await tag(), ['ConfigMissing', true])
    await writeFile(join(folder, 'config.json'), '{"model_type": ')
    assert.deepEqual(await tag(), ['ConfigNotJson', true])
    await writeFile(join(folder, 'config.json'), '[]')
    assert.deepEqual(await tag(), ['ConfigNotAnObject', true])
    await writeFile(join(folder, 'config.json'), '{"model_type": "internvl"}')
    assert.deepEqual(await tag(), [])
    await rm(folder, { recursive: true })
  })
})
