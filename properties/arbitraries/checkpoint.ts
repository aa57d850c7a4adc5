import fc from 'fast-check'
import { dtypeBytes, type FloatDtype } from '../../lib/dtype.js'
import { sizeOf } from '../../lib/shape.js'
import type { Described, Heads } from '../../models/checkpoint/layout.js'

/** A tensor with its data. */
export interface Stored extends Described {
  readonly data: Uint8Array
}

/** Keys and shapes of a small model with a Llama decoder, with every key that a layout fuses or renames. */
const declared = ({ numAttentionHeads: H, numKeyValueHeads: G, headDim: K }: Heads, layers: number, vision: number) => {
  const [D, tower] = [H * K, 'model.vision_tower']
  const vit = (i: number): ReadonlyArray<readonly [string, readonly number[]]> =>
    [
      ...['q_proj', 'k_proj', 'v_proj', 'projection_layer'].flatMap((name) => [
        [`attention.${name}.weight`, [vision, vision]] as const,
        [`attention.${name}.bias`, [vision]] as const
      ]),
      ...[
        'attention.q_norm.weight',
        'attention.k_norm.weight',
        'lambda_1',
        'lambda_2',
        'layernorm_before.weight',
        'layernorm_after.weight',
        'layernorm_after.bias'
      ].map((name) => [name, [vision]] as const),
      ['mlp.fc1.weight', [3, vision]],
      ['mlp.fc2.bias', [vision]]
    ].map(([name, shape]) => [`${tower}.encoder.layer.${i}.${name}`, shape as readonly number[]])
  const block = (i: number): ReadonlyArray<readonly [string, readonly number[]]> =>
    [
      ...(
        [
          ['q_proj', H],
          ['k_proj', G],
          ['v_proj', G]
        ] as const
      ).flatMap(([name, n]) => [[`self_attn.${name}.weight`, [n * K, D]] as const, [`self_attn.${name}.bias`, [n * K]] as const]),
      ['self_attn.o_proj.weight', [D, D]],
      ['mlp.gate_proj.weight', [3, D]],
      ['mlp.up_proj.weight', [3, D]],
      ['mlp.down_proj.weight', [D, 3]],
      ['input_layernorm.weight', [D]],
      ['post_attention_layernorm.weight', [D]]
    ].map(([name, shape]) => [`model.language_model.layers.${i}.${name}`, shape as readonly number[]])
  return [
    [`${tower}.embeddings.cls_token`, [1, 1, vision]],
    [`${tower}.embeddings.position_embeddings`, [1, 2, vision]],
    [`${tower}.embeddings.patch_embeddings.projection.weight`, [vision, 3, 1, 1]],
    [`${tower}.embeddings.patch_embeddings.projection.bias`, [vision]],
    ...[0, 11].flatMap(vit),
    ...['layer_norm', 'linear_1', 'linear_2'].flatMap((name) => [
      [`model.multi_modal_projector.${name}.weight`, [D, 2]] as const,
      [`model.multi_modal_projector.${name}.bias`, [D]] as const
    ]),
    ['model.language_model.embed_tokens.weight', [5, D]],
    ...Array.from({ length: layers }, (_, i) => block(i)).flat(),
    ['model.language_model.norm.weight', [D]],
    ['lm_head.weight', [5, D]]
  ] as ReadonlyArray<readonly [string, readonly number[]]>
}

const bytes = (n: number, seed: number) =>
  Uint8Array.from({ length: n }, (_, i) => (Math.imul(i + 1, 2654435761) ^ Math.imul(seed + 1, 40503)) >>> 11)

const stored = (dtype: FloatDtype, shapes: ReturnType<typeof declared>): readonly Stored[] =>
  shapes.map(([key, shape], i) => ({ key, dtype, shape, data: bytes(sizeOf(shape) * dtypeBytes[dtype], i) }))

/** The tensors of a small model under the keys of the parameter tree, and the decoder's heads. */
export const tree: fc.Arbitrary<{ readonly heads: Heads; readonly tensors: readonly Stored[] }> = fc
  .record({
    G: fc.integer({ min: 1, max: 3 }),
    groups: fc.integer({ min: 1, max: 3 }),
    K: fc.integer({ min: 1, max: 3 }),
    layers: fc.integer({ min: 1, max: 2 }),
    vision: fc.integer({ min: 1, max: 3 }),
    dtype: fc.constantFrom<FloatDtype>('F32', 'BF16', 'F16')
  })
  .map(({ G, groups, K, layers, vision, dtype }) => {
    const heads = { numAttentionHeads: G * groups, numKeyValueHeads: G, headDim: K }
    return { heads, tensors: stored(dtype, declared(heads, layers, vision)) }
  })

/** One model of `tree`, for tests of names. */
export const fileKeys: readonly Described[] = stored(
  'F32',
  declared({ numAttentionHeads: 1, numKeyValueHeads: 1, headDim: 2 }, 1, 2)
)
