import type { DecoderFamily } from '../decoders/decoder-family.js'
import { count, type Fields, flag, listOf, number, oneOf, positive } from './config-fields.js'
import type { RopeConfig } from './config-types.js'

const ropeTypes = ['default', 'linear', 'dynamic', 'yarn', 'longrope', 'llama3'] as const satisfies ReadonlyArray<
  RopeConfig['ropeType']
>

/** Required fields of each rope type. Source: `RotaryEmbeddingConfigMixin._validate_*` (transformers 5.24). */
const requiredFields: Readonly<Record<RopeConfig['ropeType'], readonly string[]>> = {
  default: [],
  linear: ['factor'],
  dynamic: ['factor'],
  yarn: ['factor'],
  longrope: ['short_factor', 'long_factor'],
  llama3: ['factor', 'low_freq_factor', 'high_freq_factor']
}

/**
 * Parses `rope_parameters` (transformers 5), or `rope_theta` beside `rope_scaling` (before), which wins where both are present.
 * Source: `convert_rope_params_to_dict`, `standardize_rope_params` (transformers 5.24).
 */
export const ropeConfig = (f: Fields, { defaults, rope }: DecoderFamily, maxPositions: number, headDim: number): RopeConfig => {
  const scaling = f.inside('rope_scaling')
  const r = scaling.isEmpty ? f.inside('rope_parameters', defaults.ropeParameters) : scaling
  const typeNames = { ...Object.fromEntries(ropeTypes.map((type) => [type, type])), ...rope?.typeNames }
  const named = r('rope_type|type', oneOf(Object.keys(typeNames)), 'default')
  const ropeType = typeNames[named]!
  for (const key of requiredFields[ropeType]) if (!r.has(key)) r.note(key, `present, as rope type ${named} requires`)
  const isScaled = ropeType === 'yarn' || ropeType === 'longrope' || ropeType === 'llama3'
  const partial = r.maybe('partial_rotary_factor', positive) ?? f.maybe('partial_rotary_factor', positive)
  const partialRotaryFactor = rope?.isPartial ? (partial ?? 1) : 1
  const factors = (key: string) => {
    const values = r.maybe(key, listOf(positive))
    const expected = Math.floor(Math.floor(headDim * partialRotaryFactor) / 2)
    if (values && values.length !== expected) r.note(key, `${expected} numbers, one for each pair of a head`)
    return values
  }
  return {
    ropeType,
    ropeTheta: r('rope_theta', positive, f('rope_theta', positive, defaults.ropeTheta)),
    partialRotaryFactor,
    factor: r.maybe('factor', positive),
    originalMaxPositionEmbeddings:
      f.maybe('original_max_position_embeddings', count) ??
      defaults.originalMaxPositionEmbeddings ??
      r.maybe('original_max_position_embeddings', count) ??
      (isScaled ? maxPositions : undefined),
    attentionFactor: r.maybe('attention_factor', number),
    betaFast: r.maybe('beta_fast', number),
    betaSlow: r.maybe('beta_slow', number),
    mscale: r.maybe('mscale', number),
    mscaleAllDim: r.maybe('mscale_all_dim', number),
    truncate: r.maybe('truncate', flag),
    lowFreqFactor: r.maybe('low_freq_factor', number),
    highFreqFactor: r.maybe('high_freq_factor', number),
    shortFactor: factors('short_factor'),
    longFactor: factors('long_factor')
  }
}
