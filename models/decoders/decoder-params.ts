import type { Weight } from '../../lib/nn/linear.js'
import type { tf } from '../../lib/tf.js'

/** Parameters of a linear layer: weight `[out, in]`, bias `[out]`. */
export interface LinearParams {
  readonly weight: Weight
  readonly bias?: tf.Tensor1D
}

/** Parameters of an RMS norm. */
export interface RmsNormParams {
  readonly weight: tf.Tensor1D
}

/** Parameters of self-attention; `q_norm` and `k_norm` for Qwen3 only. */
export interface AttentionParams {
  readonly q_proj: LinearParams
  readonly k_proj: LinearParams
  readonly v_proj: LinearParams
  readonly o_proj: LinearParams
  readonly q_norm?: RmsNormParams
  readonly k_norm?: RmsNormParams
  /** No parameters: for taps only. */
  readonly attention_weights?: Readonly<Record<never, never>>
}

/** Parameters of a gated MLP. */
export interface GatedMlpParams {
  readonly gate_proj: LinearParams
  readonly up_proj: LinearParams
  readonly down_proj: LinearParams
}

/** Parameters of a decoder layer. */
export interface DecoderLayerParams<Attention = AttentionParams, Mlp = GatedMlpParams> {
  readonly input_layernorm: RmsNormParams
  readonly self_attn: Attention
  readonly post_attention_layernorm: RmsNormParams
  readonly mlp: Mlp
}

/**
 * Parameters of a decoder; the dotted paths are checkpoint keys: `layers[0].mlp.gate_proj.weight`. The defaults are those of Qwen2, Qwen3,
 * Llama and InternLM. Other decoders have their own attention or MLP, as in
 * `DecoderParams<Parameters<ReturnType<typeof phi3Attention>['apply']>[0], …>`: cast the `language_model` of these to their type.
 */
export interface DecoderParams<Attention = AttentionParams, Mlp = GatedMlpParams> {
  readonly embed_tokens: { readonly weight: Weight }
  readonly layers: ReadonlyArray<DecoderLayerParams<Attention, Mlp>>
  readonly norm: RmsNormParams
}
