/** Fields that Python reads as floats: Transformers' strict configurations refuse a whole number there. */
const floats: ReadonlySet<string> = new Set([
  'attention_dropout',
  'attention_factor',
  'beta_fast',
  'beta_slow',
  'downsample_ratio',
  'drop_path_rate',
  'dropout',
  'factor',
  'flash_absolute_threshold',
  'flash_relative_threshold',
  'hidden_dropout_prob',
  'high_freq_factor',
  'initializer_factor',
  'initializer_range',
  'layer_norm_eps',
  'layer_scale_init_value',
  'long_factor',
  'low_freq_factor',
  'mscale',
  'mscale_all_dim',
  'partial_rotary_factor',
  'projection_dropout',
  'rms_norm_eps',
  'rope_theta',
  'router_aux_loss_coef',
  'short_factor',
  'swiglu_alpha',
  'swiglu_limit'
])

const floatMark = '\u0000float:'
const withFloatMark = (value: unknown): unknown => (Number.isSafeInteger(value) ? `${floatMark}${value}` : value)

/** A configuration as JSON text. Whole numbers in float fields are written as `7.0`, which Python reads as a float. */
export const configText = (json: unknown): string => {
  const text = JSON.stringify(
    json,
    (key, value: unknown) => (floats.has(key) ? (Array.isArray(value) ? value.map(withFloatMark) : withFloatMark(value)) : value),
    2
  )
  return `${text.replaceAll(/"\\u0000float:(-?\d+)"/g, '$1.0')}\n`
}
