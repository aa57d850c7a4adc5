import { namedParameters } from '../../../lib/params.js'
import { quantizationFormats } from '../../../lib/quantization/formats.js'
import type { InternVLCheckpoint } from '../../checkpoint/load.js'
import type { EngineInfo, RequestOptions } from '../engine-types.js'
import { requestOptions } from './request-context.js'

/** The format that most numbers of the weights are stored in, and the number of parameters. */
const describeWeights = (params: unknown): { readonly precision: string; readonly parameters: number } => {
  const sizes = new Map<string, number>()
  // elements of packed int32 tensors for each weight: 4 bytes hold this many numbers, scales aside
  const numbersPerElement: Readonly<Record<string, number>> = { bf16: 2, f16: 2, int8: 64 / 18, int6: 64 / 14, int4: 64 / 10 }
  for (const [key, { size }] of namedParameters(params)) {
    const format = quantizationFormats.find((name) => key.endsWith(`.${name}`)) ?? 'float32'
    sizes.set(format, (sizes.get(format) ?? 0) + Math.round(size * (numbersPerElement[format] ?? 1)))
  }
  const [precision] = [...sizes].sort(([, a], [, b]) => b - a)[0] ?? ['float32']
  return {
    precision: precision === 'bf16' ? 'bfloat16' : precision === 'f16' ? 'float16' : precision,
    parameters: [...sizes.values()].reduce((a, b) => a + b, 0)
  }
}

/** Description of a loaded checkpoint for `engine.info`. */
export const describeCheckpoint = (
  internvl: InternVLCheckpoint,
  model: string | undefined,
  defaults: RequestOptions,
  loadSeconds: number
): EngineInfo => {
  const { config, dir, engine, processor, params, generation } = internvl
  const chatTemplate = defaults.chatTemplate ?? processor.chatTemplate.source
  const { eosTokenIds, maxPositionEmbeddings, imageTokenId } = generation
  return {
    model: model ?? dir,
    dir,
    engine: engine.name,
    modelType: config.modelType,
    ...describeWeights(params),
    contextLength: maxPositionEmbeddings ?? config.textConfig.maxPositionEmbeddings,
    vocabSize: config.textConfig.vocabSize,
    defaults: requestOptions({ internvl, defaults }),
    eosTokenIds: eosTokenIds ?? [],
    supportsTools: /\btools\b/.test(chatTemplate),
    chatTemplate,
    imageTokenId,
    loadSeconds
  }
}
