import { getOrThrow, orThrow } from '../../lib/error.js'
import { withoutKernels } from '../../lib/ops/kernel.js'
import { buildParams, declarations, disposeParams, namedParameters } from '../../lib/params.js'
import { dequantize, type QuantizedWeight, quantizationFormats } from '../../lib/quantization/formats.js'
import { tf } from '../../lib/tf.js'
import { bindModel, type InternVLParams, type LoadedModel, loadModel } from '../../models/checkpoint/load-model.js'
import { saveModel } from '../../models/checkpoint/save-model.js'
import type { Json } from '../../models/config/config-fields.js'
import { parseConfig } from '../../models/config/parse-config.js'

import { type InternVL, internVL } from '../../models/internvl/internvl.js'
import type { Quantization } from '../../models/quantization/precision.js'
import { splitFormat } from '../../models/quantization/quantized-keys.js'
import { quantizableSizes } from '../../models/quantization/weight-formats.js'
import { relativeL2 } from '../bench/quality/quality.js'
import { inFolder, modelJson } from '../models/folders.js'
import type { Section } from './check-section.js'

/** Largest distance of logits from those of the dequantized weights: of products in float32, and of products in 16 bits. */
const [mostInFloat32, mostInHalf] = [1e-4, 0.035]

/** A model whose modules are all large enough to be quantized, see `smallModuleSize`; its head has another number of bits than its layers. */
const json = (): Json => {
  const { vision_config, text_config, ...rest } = modelJson('qwen2') as Record<string, Record<string, Json>>
  const sizes = { hidden_size: 256, intermediate_size: 512 }
  return {
    ...rest,
    vision_config: { ...vision_config, ...sizes, num_attention_heads: 4 },
    text_config: { ...text_config, ...sizes, vocab_size: 512, num_hidden_layers: 2, head_dim: 64 }
  }
}

/** Writes the model with pseudo-random weights. */
const writeModel = async (folder: string): Promise<void> => {
  const config = getOrThrow(parseConfig(json()))
  const module = internVL(config)
  let seed = 1
  const params = buildParams(module, (path) => {
    const { shape } = declarations(module).find(([declared]) => declared === path)![1]
    return tf.randomNormal([...shape], 0, shape.length > 1 ? 0.06 : 1, 'float32', seed++)
  })
  await orThrow(saveModel(folder, { config, params, dtype: 'bfloat16' }))
  disposeParams(params)
}

/** Logits of a prompt with an image, and of one further token with the cache. */
const logitsOf = (model: InternVL): Float32Array =>
  tf.tidy(() => {
    const inputIds = tf.tensor2d([[5, 1, 1, 1, 1, 40, 300, 411]], undefined, 'int32')
    const first = model({ inputIds, pixelValues: tf.randomNormal([1, 3, 8, 8], 0, 1, 'float32', 7) }, { useCache: true })
    const next = model({ inputIds: tf.tensor2d([[77]], undefined, 'int32') }, { cache: first.cache!, useCache: true })
    return tf.concat([first.logits, next.logits], 1).dataSync() as Float32Array
  })

/** The paths of the weights that are in memory in one of the formats int8, int6 and int4. */
const quantizedPaths = (params: unknown): readonly string[] =>
  namedParameters(params).flatMap(([key]) => (splitFormat(key).format ? [splitFormat(key).path] : []))

/** The parameters with every packed weight dequantized to float32, on the host. */
const dequantized = ({ module, params }: LoadedModel): InternVLParams => {
  const columns = new Map(declarations(module).map(([path, { shape }]) => [path, shape.at(-1)!]))
  const weights = new Map(
    namedParameters(params).map(([key, tensor]) => {
      const format = quantizationFormats.find((name) => key.endsWith(`.${name}`))
      const path = format ? key.slice(0, -format.length - 1) : key
      const weight = format && ({ [format]: tensor } as unknown as QuantizedWeight)
      return [path, weight ? withoutKernels(() => dequantize(weight, columns.get(path)!)) : tensor.clone()]
    })
  )
  return buildParams(module, (path) => weights.get(path)!)
}

/**
 * Weights in int8 or int4, of a model that is quantized whole: logits are compared with those of the dequantized weights in float32. The
 * reference cases are too small to be quantized.
 */
export const quantizedWeights = (name: Quantization): Section => ({
  name: `weights in ${name}`,
  run: () =>
    inFolder(async (folder) => {
      await writeModel(`${folder}/model`)
      const loaded = await orThrow(loadModel(`${folder}/model`, { quantize: name, imageTokenId: 1 }))
      const floats = dequantized(loaded)
      try {
        const [all, found] = [[...quantizableSizes(loaded.module).keys()], quantizedPaths(loaded.params)]
        const missing = all.filter((path) => !found.includes(path))
        if (missing.length > 0) throw new Error(`${missing.length} of ${all.length} weights are not quantized: ${missing[0]}`)
        const exact = logitsOf(bindModel(loaded.module, floats, {}))
        const distanceWith = (activations: 'float32' | 'auto'): number => {
          const kvCache = activations === 'float32' ? 'float32' : undefined
          return relativeL2([logitsOf(bindModel(loaded.module, loaded.params, { activations, kvCache }))], [exact])
        }
        const [inFloat32, inHalf] = [distanceWith('float32'), distanceWith('auto')]
        const percent = (x: number): string => `${(100 * x).toPrecision(2)} %`
        const summary = `all ${all.length} weights quantized, logits ${percent(inFloat32)} away with products in float32, ${percent(inHalf)} in 16 bits`
        if (!(inFloat32 <= mostInFloat32 && inHalf <= mostInHalf)) throw new Error(summary)
        return { summary, details: { weights: all.length, inFloat32, inHalf } }
      } finally {
        disposeParams(floats)
        loaded.dispose()
      }
    })
})
