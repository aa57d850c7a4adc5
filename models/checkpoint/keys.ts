/**
 * A rule of a key map: how a key is written in a file, and in the module tree. `*` stands for an index, `**` for the rest of
 * the key. Several tree keys: the file fuses these tensors along axis 0, in the way that `fused` says.
 */
export interface KeyRule {
  readonly file: string
  readonly tree: string | readonly string[]
  readonly fused?: 'thirds' | 'groups'
}

const rule = (file: string, tree: string): KeyRule => ({ file, tree })

/** The decoder and its head, named alike by the first `-hf` files and by OpenGVLab's. */
const languageModel = [
  rule('language_model.model.**', 'model.language_model.**'),
  rule('language_model.lm_head.**', 'lm_head.**')
]

const vit = 'vision_model.encoder.layers.*'
const tower = 'model.vision_tower.encoder.layer.*'

/** InternViT and the projector as OpenGVLab names them. Source: `convert_internvl_weights_to_hf.py` (transformers 4.57). */
const originalVision = [
  rule('vision_model.embeddings.class_embedding', 'model.vision_tower.embeddings.cls_token'),
  rule('vision_model.embeddings.position_embedding', 'model.vision_tower.embeddings.position_embeddings'),
  rule('vision_model.embeddings.patch_embedding.**', 'model.vision_tower.embeddings.patch_embeddings.projection.**'),
  rule(`${vit}.norm1.**`, `${tower}.layernorm_before.**`),
  rule(`${vit}.norm2.**`, `${tower}.layernorm_after.**`),
  rule(`${vit}.ls1`, `${tower}.lambda_1`),
  rule(`${vit}.ls2`, `${tower}.lambda_2`),
  rule(`${vit}.attn.q_norm.**`, `${tower}.attention.q_norm.**`),
  rule(`${vit}.attn.k_norm.**`, `${tower}.attention.k_norm.**`),
  rule(`${vit}.attn.proj.**`, `${tower}.attention.projection_layer.**`),
  rule(`${vit}.mlp.**`, `${tower}.mlp.**`),
  {
    file: `${vit}.attn.qkv.**`,
    tree: ['q_proj', 'k_proj', 'v_proj'].map((name) => `${tower}.attention.${name}.**`),
    fused: 'thirds'
  },
  rule('mlp1.0.**', 'model.multi_modal_projector.layer_norm.**'),
  rule('mlp1.1.**', 'model.multi_modal_projector.linear_1.**'),
  rule('mlp1.3.**', 'model.multi_modal_projector.linear_2.**')
] as const satisfies readonly KeyRule[]

const internLm2Layer = 'language_model.model.layers.*'
const llamaLayer = 'model.language_model.layers.*'

/** InternLM2's own names for what is a Llama. Source: as above. */
const internLm2 = [
  rule('language_model.model.tok_embeddings.**', 'model.language_model.embed_tokens.**'),
  rule('language_model.model.norm.**', 'model.language_model.norm.**'),
  rule('language_model.output.**', 'lm_head.**'),
  rule(`${internLm2Layer}.attention_norm.**`, `${llamaLayer}.input_layernorm.**`),
  rule(`${internLm2Layer}.ffn_norm.**`, `${llamaLayer}.post_attention_layernorm.**`),
  rule(`${internLm2Layer}.attention.wo.**`, `${llamaLayer}.self_attn.o_proj.**`),
  rule(`${internLm2Layer}.feed_forward.w1.**`, `${llamaLayer}.mlp.gate_proj.**`),
  rule(`${internLm2Layer}.feed_forward.w2.**`, `${llamaLayer}.mlp.down_proj.**`),
  rule(`${internLm2Layer}.feed_forward.w3.**`, `${llamaLayer}.mlp.up_proj.**`),
  {
    file: `${internLm2Layer}.attention.wqkv.**`,
    tree: ['q_proj', 'k_proj', 'v_proj'].map((name) => `${llamaLayer}.self_attn.${name}.**`),
    fused: 'groups'
  }
] as const satisfies readonly KeyRule[]

/**
 * How each layout of a checkpoint writes the keys of the module tree.
 * `hf`: saved by Transformers since 4.52, the tree's own keys; `hf-first`: `-hf` as first published;
 * `original`: OpenGVLab's, with the decoder's own names; `original-internlm2`: the same with InternLM2's.
 */
export const keyMaps = {
  hf: ['model.vision_tower.**', 'model.multi_modal_projector.**', 'model.language_model.**', 'lm_head.**'].map((key) =>
    rule(key, key)
  ),
  'hf-first': [
    ...languageModel,
    rule('vision_tower.**', 'model.vision_tower.**'),
    rule('multi_modal_projector.**', 'model.multi_modal_projector.**')
  ],
  original: [...languageModel, ...originalVision],
  'original-internlm2': [...internLm2, ...originalVision]
} as const satisfies Readonly<Record<string, readonly KeyRule[]>>

export type Layout = keyof typeof keyMaps

/** Keys that tell a layout; `decoder` ones are shared by two. */
export const marks = {
  hf: /^(model\.(vision_tower|multi_modal_projector|language_model)|lm_head)\./,
  'hf-first': /^(vision_tower|multi_modal_projector)\./,
  original: /^(vision_model|mlp1)\./,
  'original-internlm2':
    /^language_model\.(output|model\.(tok_embeddings|layers\.\d+\.(attention|feed_forward|attention_norm|ffn_norm)))\./,
  decoder:
    /^language_model\.(lm_head|model\.(embed_tokens|layers\.\d+\.(self_attn|mlp|input_layernorm|post_attention_layernorm)))\./
} as const

/** Buffers that older software stored beside the parameters; they are computed, never read. */
export const isBuffer = (key: string): boolean =>
  /(^|\.)(rotary_emb\.inv_freq|rotary_emb\.(cos|sin)_cached|position_ids)$/.test(key)

export type Side = 'file' | 'tree'
/** A rule's keys on one side; only the tree's may be several. */
export const sideOf = (rule: KeyRule, side: Side): readonly string[] => [rule[side]].flat()

const patterns = new Map<string, RegExp>()
const patternOf = (template: string): RegExp => {
  const made =
    patterns.get(template) ??
    new RegExp(`^${template.replaceAll('.', '\\.').replaceAll(/\*\*?/g, (s) => (s === '*' ? '(\\d+)' : '(.+)'))}$`)
  patterns.set(template, made)
  return made
}

/** What `*` and `**` stand for in a key, or null when it is of another form. */
export const match = (template: string, key: string): readonly string[] | null => patternOf(template).exec(key)?.slice(1) ?? null

/** The key of a template, its wildcards filled in order. */
export const fillIn = (template: string, found: readonly string[]): string => {
  let i = 0
  return template.replaceAll(/\*\*?/g, () => found[i++]!)
}
