import assert from 'node:assert/strict'
import fc from 'fast-check'
import { dtypeBytes } from '../../../lib/dtype.js'
import { getOrThrow, type Issues } from '../../../lib/error.js'
import { sizeOf } from '../../../lib/shape.js'
import {
  type Described,
  type Heads,
  type Layout,
  type Planned,
  planFile,
  planTree,
  readPlanned,
  recognizeLayout,
  rulesFor
} from '../../../models/checkpoint/layout.js'
import { fileKeys, type Stored, tree } from '../../arbitraries/checkpoint.js'

const layouts: readonly Layout[] = ['hf', 'hf-first', 'original', 'original-internlm2']
const layout = fc.constantFrom(...layouts)

/** Executes a plan on data in memory. */
const carryOut = async (plan: readonly Planned[], sources: readonly Stored[]): Promise<readonly Stored[]> => {
  const data = new Map(sources.map((source) => [source.key, source.data]))
  const read = async (source: string, begin: number, end: number) => data.get(source)!.slice(begin, end)
  return Promise.all(plan.map(async (planned) => ({ ...described(planned), data: await readPlanned(planned, read) })))
}
const described = ({ key, dtype, shape }: Described): Described => ({ key, dtype, shape })
const byKey = (tensors: readonly Stored[]) => new Map(tensors.map((tensor) => [tensor.key, tensor]))
const tags = (result: unknown) => {
  const { _tag, left } = result as { _tag: string; left: Issues }
  assert.equal(_tag, 'Left', 'expected errors')
  return left.map((issue) => [issue._tag, issue.key ?? issue.firstKeys])
}

describe('checkpoint keys', () => {
  it('planTree after planFile is the identity, bit for bit, in every layout', async () => {
    await fc.assert(
      fc.asyncProperty(tree, layout, async ({ tensors, heads }, layout) => {
        const file = await carryOut(getOrThrow(planFile(layout, tensors, heads)), tensors)
        for (const { data, dtype, shape } of file) assert.equal(data.length, sizeOf(shape) * dtypeBytes[dtype])
        assert.deepEqual(getOrThrow(recognizeLayout(file.map(({ key }) => key))), layout)
        const back = await carryOut(getOrThrow(planTree(layout, file, heads)), file)
        assert.deepEqual(byKey(back), byKey(tensors))
        const again = await carryOut(getOrThrow(planFile(layout, back, heads)), back)
        assert.deepEqual(byKey(again), byKey(file))
      }),
      { numRuns: 60 }
    )
  })

  it('every key has one rule on each side, and renaming is idempotent', () => {
    fc.assert(
      fc.property(tree, layout, ({ tensors, heads }, layout) => {
        const file = getOrThrow(planFile(layout, tensors, heads))
        for (const { key } of tensors) {
          assert.equal(rulesFor(layout, 'tree', key).length, 1, key)
          assert.equal(rulesFor(layout, 'file', key).length, layout === 'hf' ? 1 : 0, key)
        }
        for (const { key } of file) assert.equal(rulesFor(layout, 'file', key).length, 1, key)
        const once = getOrThrow(planTree(layout, file, heads))
        const twice = getOrThrow(planTree(layout, once, heads))
        assert.deepEqual(twice.map(described), once.map(described))
      })
    )
  })

  it('layouts write the names that were published', () => {
    const heads: Heads = { numAttentionHeads: 1, numKeyValueHeads: 1, headDim: 2 }
    const written = (layout: Layout) => new Set(getOrThrow(planFile(layout, fileKeys, heads)).map(({ key }) => key))
    const expected: Readonly<Record<Layout, readonly string[]>> = {
      hf: [
        'lm_head.weight',
        'model.vision_tower.encoder.layer.11.lambda_1',
        'model.language_model.layers.0.mlp.gate_proj.weight'
      ],
      'hf-first': [
        'language_model.lm_head.weight',
        'language_model.model.embed_tokens.weight',
        'vision_tower.encoder.layer.11.attention.q_proj.bias',
        'multi_modal_projector.linear_2.weight'
      ],
      original: [
        'language_model.lm_head.weight',
        'language_model.model.layers.0.self_attn.q_proj.weight',
        'vision_model.embeddings.class_embedding',
        'vision_model.embeddings.patch_embedding.bias',
        'vision_model.embeddings.position_embedding',
        'vision_model.encoder.layers.11.attn.qkv.weight',
        'vision_model.encoder.layers.11.attn.qkv.bias',
        'vision_model.encoder.layers.11.attn.proj.weight',
        'vision_model.encoder.layers.11.attn.q_norm.weight',
        'vision_model.encoder.layers.11.ls1',
        'vision_model.encoder.layers.11.norm2.weight',
        'vision_model.encoder.layers.11.mlp.fc1.weight',
        'mlp1.0.bias',
        'mlp1.1.weight',
        'mlp1.3.weight'
      ],
      'original-internlm2': [
        'language_model.output.weight',
        'language_model.model.tok_embeddings.weight',
        'language_model.model.norm.weight',
        'language_model.model.layers.0.attention.wqkv.weight',
        'language_model.model.layers.0.attention.wo.weight',
        'language_model.model.layers.0.feed_forward.w1.weight',
        'language_model.model.layers.0.feed_forward.w2.weight',
        'language_model.model.layers.0.feed_forward.w3.weight',
        'language_model.model.layers.0.attention_norm.weight',
        'language_model.model.layers.0.ffn_norm.weight'
      ]
    }
    for (const layout of layouts)
      for (const key of expected[layout] ?? assert.fail(layout)) assert.ok(written(layout).has(key), `${layout}: ${key}`)
  })

  it('fused q, k and v are thirds of the rows; InternLM2’s are grouped by key-value head', async () => {
    const rows = (key: string, values: readonly number[]): Stored => ({
      key,
      dtype: 'U8',
      shape: [values.length, 1],
      data: Uint8Array.from(values)
    })
    const names = (plan: readonly Stored[]) => plan.map(({ key, data }) => [key.split('.').at(-2), ...data])
    const heads = { numAttentionHeads: 4, numKeyValueHeads: 2, headDim: 2 }
    const qkv = rows('vision_model.encoder.layers.0.attn.qkv.weight', [1, 2, 3, 4, 5, 6])
    assert.deepEqual(names(await carryOut(getOrThrow(planTree('original', [qkv], heads)), [qkv])), [
      ['q_proj', 1, 2],
      ['k_proj', 3, 4],
      ['v_proj', 5, 6]
    ])
    // einops: rearrange(wqkv, "(h gs d) z -> h gs d z", gs = 2 + 4 / 2, d = 2), then [:, :2], [:, -2], [:, -1]
    const wqkv = rows(
      'language_model.model.layers.0.attention.wqkv.weight',
      [0, 1, 2, 3, 40, 41, 50, 51, 4, 5, 6, 7, 42, 43, 52, 53]
    )
    assert.deepEqual(names(await carryOut(getOrThrow(planTree('original-internlm2', [wqkv], heads)), [wqkv])), [
      ['q_proj', 0, 1, 2, 3, 4, 5, 6, 7],
      ['k_proj', 40, 41, 42, 43],
      ['v_proj', 50, 51, 52, 53]
    ])
  })

  it('known buffers are left out; keys that no rule matches keep their names', () => {
    const heads = { numAttentionHeads: 1, numKeyValueHeads: 1, headDim: 2 }
    const one = (key: string): Described => ({ key, dtype: 'F32', shape: [2] })
    const stored = [
      'language_model.model.layers.0.self_attn.rotary_emb.inv_freq',
      'vision_tower.embeddings.position_ids',
      'router.gate',
      'vision_tower.x'
    ].map(one)
    assert.deepEqual(
      getOrThrow(planTree('hf-first', stored, heads)).map(({ key }) => key),
      ['router.gate', 'model.vision_tower.x']
    )
  })

  it('every tensor that cannot be fused or has no name in the layout is an error', () => {
    const heads = { numAttentionHeads: 4, numKeyValueHeads: 2, headDim: 2 }
    const one = (key: string, ...shape: readonly number[]): Described => ({ key, dtype: 'F32', shape })
    const [vit, qkv] = ['model.vision_tower.encoder.layer.0.attention', 'vision_model.encoder.layers.0.attn.qkv.weight']
    const wqkv = 'language_model.model.layers.0.attention.wqkv.weight'
    assert.deepEqual(tags(planTree('original-internlm2', [one(qkv, 7, 1), one(wqkv, 12, 1), one('mlp1.0.bias')], heads)), [
      ['FusedShape', qkv],
      ['FusedShape', wqkv]
    ])
    assert.deepEqual(tags(planFile('original', [one(`${vit}.q_proj.weight`, 2, 2), one(`${vit}.k_proj.weight`, 2, 2)], heads)), [
      ['FusedIncomplete', qkv]
    ])
    const uneven = ['q_proj', 'k_proj', 'v_proj'].map((name, i) => one(`${vit}.${name}.weight`, 1 + i, 2))
    assert.deepEqual(tags(planFile('original', [...uneven, one('model.vision_tower.layernorm.weight', 2)], heads)), [
      ['FusedShape', qkv],
      ['KeyUnmapped', 'model.vision_tower.layernorm.weight']
    ])
  })

  it('the error of an ambiguous or incomplete layout lists the first keys of each group', () => {
    const vision = ['vision_model.encoder.layers.0.ls1', 'vision_model.encoder.layers.0.ls2', 'mlp1.0.weight', 'mlp1.0.bias']
    const decoder = ['model.language_model.norm.weight', 'lm_head.weight']
    const mixed = recognizeLayout([...vision, ...decoder])
    assert.deepEqual(tags(mixed), [['AmbiguousLayout', { hf: decoder, original: vision.slice(0, 3), unknown: [] }]])
    assert.deepEqual(tags(recognizeLayout([...vision, 'language_model.transformer.h.0.w'])), [
      ['UnknownLayout', { original: vision.slice(0, 3), unknown: ['language_model.transformer.h.0.w'] }]
    ])
    assert.deepEqual(tags(recognizeLayout(['a', 'b', 'c', 'd'])), [['UnknownLayout', { unknown: ['a', 'b', 'c'] }]])
    assert.deepEqual(tags(recognizeLayout([])), [['UnknownLayout', { unknown: [] }]])
    const onlyDecoder = ['language_model.model.embed_tokens.weight']
    assert.deepEqual(tags(recognizeLayout(onlyDecoder)), [['UnknownLayout', { decoder: onlyDecoder, unknown: [] }]])
    const whole = [
      'vision_tower.x',
      'language_model.model.norm.weight',
      'language_model.model.layers.0.mlp.up_proj.weight',
      'extra.weight'
    ]
    assert.equal(
      getOrThrow(recognizeLayout(whole)),
      'hf-first',
      'an unexpected key beside a whole layout is for the loader to report'
    )
  })
})
