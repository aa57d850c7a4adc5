/** The least and the greatest value of a number; without `least` only the greatest is checked. */
export interface Bound {
  readonly least?: number
  readonly most: number
}

/** Bounds of numbers by the name of their field. */
export type Bounds = Readonly<Record<string, Bound>>

const int32 = 2 ** 31 - 1
const tokenId: Bound = { least: -int32, most: int32 } // published files have -1 where there is no padding token
const share: Bound = { least: 0, most: 1 }
const layerIndex: Bound = { least: -1025, most: 1024 }
const experts: Bound = { most: 4096 }
const tiles: Bound = { most: 512 }
const pixels: Bound = { most: 16384 }
const coefficient: Bound = { least: -1e6, most: 1e6 }

/** Greatest number of experts in all layers of a model together: each is a module of its own. */
export const mostExperts = 2 ** 16

/**
 * The numbers of config.json: each has the bound that its meaning sets, several times beyond the largest released model, so that a
 * damaged or hostile file is an error that names the field and not an allocation. Relations between fields (experts per token,
 * feature layer, head sizes) are checked where both are read.
 */
export const configBounds: Bounds = {
  // widths and counts of layers
  hidden_size: { most: 2 ** 17 },
  intermediate_size: { most: 2 ** 20 },
  moe_intermediate_size: { most: 2 ** 20 },
  num_hidden_layers: { most: 1024 },
  num_attention_heads: { most: 1024 },
  num_key_value_heads: { most: 1024 },
  head_dim: { most: 4096 },
  num_experts: experts,
  num_local_experts: experts,
  num_experts_per_tok: experts,
  decoder_sparse_step: { most: 1024 },
  mlp_only_layers: layerIndex,
  max_window_layers: { most: int32 },
  // tokens and positions
  vocab_size: { most: 2 ** 24 },
  max_position_embeddings: { most: 2 ** 30 },
  original_max_position_embeddings: { most: 2 ** 30 },
  sliding_window: { most: int32 },
  bos_token_id: tokenId,
  eos_token_id: tokenId,
  pad_token_id: tokenId,
  image_token_id: tokenId,
  image_seq_length: { most: 2 ** 20 },
  // images
  image_size: pixels,
  force_image_size: pixels,
  patch_size: { most: 1024 },
  num_channels: { most: 64 },
  downsample_ratio: { least: 1 / 64, most: 1 },
  min_dynamic_patch: tiles,
  max_dynamic_patch: tiles,
  vision_feature_layer: layerIndex,
  select_layer: layerIndex,
  // shares and probabilities
  attention_dropout: share,
  hidden_dropout_prob: share,
  projection_dropout: share,
  dropout: share,
  drop_path_rate: share,
  partial_rotary_factor: share,
  flash_relative_threshold: share,
  flash_absolute_threshold: share,
  // coefficients
  rms_norm_eps: share,
  layer_norm_eps: share,
  initializer_range: { least: 0, most: 1e3 },
  initializer_factor: coefficient,
  layer_scale_init_value: coefficient,
  router_aux_loss_coef: coefficient,
  swiglu_alpha: coefficient,
  swiglu_limit: coefficient,
  // rotary position embedding
  rope_theta: { most: 1e15 },
  factor: { most: 1e6 },
  attention_factor: coefficient,
  beta_fast: coefficient,
  beta_slow: coefficient,
  mscale: coefficient,
  mscale_all_dim: coefficient,
  low_freq_factor: coefficient,
  high_freq_factor: coefficient,
  short_factor: { most: 1e6 },
  long_factor: { most: 1e6 }
}

const described = ({ least, most }: Bound): string => (least === undefined ? `at most ${most}` : `from ${least} to ${most}`)

/** The bound in words where a number, or one of a list of numbers, is out of it; undefined where all are within. */
export const outOfBounds = (bound: Bound, value: unknown): string | undefined => {
  const { least = Number.NEGATIVE_INFINITY, most } = bound
  const isOutside = [value].flat().some((n) => typeof n === 'number' && (n < least || n > most))
  return isOutside ? described(bound) : undefined
}
