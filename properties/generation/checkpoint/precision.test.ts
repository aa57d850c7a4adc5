import assert from 'node:assert/strict'
import { fileURLToPath } from 'node:url'
import type { CommanderError } from 'commander'
import fc from 'fast-check'
import { askCommand } from '../../../generation/cli/commands/ask-command.js'
import { demoCommand } from '../../../generation/cli/commands/demo/demo-command.js'
import { embedCommand } from '../../../generation/cli/commands/embed-command.js'
import { precisionOptions } from '../../../generation/cli/flags/precision-flags.js'
import { disposeCache, generateAll } from '../../../generation/decoding/generate.js'
import { answerLogits } from '../../../generation/evaluate/perplexity.js'
import { loadVisionEncoder } from '../../../generation/index.js'
import { answer, embed, load, pipeline, tf } from '../../../generation/root.js'
import { loadOptions } from '../../../generation/transformers/config-classes.js'
import { InternVLForConditionalGeneration } from '../../../generation/transformers/index.js'
import { getOrThrow } from '../../../lib/error.js'
import { type KVCacheType, kvCacheTypes } from '../../../lib/nn/attention/kv-cache.js'
import { hasKernel, usesTensorflowOps } from '../../../lib/ops/kernel.js'
import { namedParameters } from '../../../lib/params.js'
import { keepsQuantized } from '../../../lib/quantization/formats.js'
import { parseConfig } from '../../../models/config/parse-config.js'
import { internVL } from '../../../models/internvl/internvl.js'
import {
  dtypes,
  formatsByKey,
  type PrecisionOptions,
  precisionOf,
  quantizations,
  smallModuleSize
} from '../../../models/quantization/precision.js'
import { quantizableSizes } from '../../../models/quantization/weight-formats.js'
import { relativeL2 } from '../../bench/quality/quality.js'
import { check } from '../../laws/check.js'
import { distance } from '../../laws/close.js'

const image = fileURLToPath(new URL('../../../generation/demo/shapes.png', import.meta.url))
const described =
  'There is a green circle at the top left, a black star at the top right, a blue triangle at the bottom left and a pink triangle at the bottom right.'

/** Options of `load` that a command line sets, or the error message of the command line. */
const parsed = (command: () => ReturnType<typeof askCommand>, ...argv: readonly string[]): PrecisionOptions | string => {
  let options: PrecisionOptions = {}
  const quiet = command()
    .exitOverride()
    .configureOutput({ writeErr: () => {} })
    .action((...all) => {
      options = precisionOptions(all.at(-1).opts())
    })
  try {
    quiet.parse(argv, { from: 'user' })
    return options
  } catch (error) {
    return (error as CommanderError).message
  }
}

const part = fc.option(fc.constantFrom(...quantizations), { nil: undefined })
const options = fc.record({
  dtype: fc.option(fc.constantFrom(...dtypes), { nil: undefined }),
  quantize: fc.option(fc.oneof(fc.constantFrom(...quantizations), fc.record({ vision: part, decoder: part })), { nil: undefined })
})

describe('precision', () => {
  it('activations: float32 on the command line and in load; an unknown type is an error that names the option', async () => {
    const known = parsed(askCommand, 'what?', '--activations', 'float32')
    assert.deepEqual(known, { activations: 'float32' })
    assert.match(String(parsed(askCommand, 'what?', '--activations', 'int3')), /--activations .*float32/)
    assert.throws(
      () => precisionOf({ activations: 'int3' as 'auto' }),
      /activations: there is no "int3"; it can be auto or float32/
    )
    await assert.rejects(load(undefined, { activations: 'int3' as 'auto' }), /activations: there is no "int3"/)
  })

  it('the KV cache: its type on the command line, in load and in a call; an unknown type is an error that names the option', async () => {
    assert.deepEqual(parsed(askCommand, 'what?', '--kv-cache', 'int8'), { kvCache: 'int8' })
    assert.match(String(parsed(askCommand, 'what?', '--kv-cache', 'int4')), /--kv-cache .*float32, bfloat16, float16, int8/)
    await assert.rejects(load(undefined, { kvCache: 'int4' as 'int8' }), /kvCache: there is no "int4"; it can be float32 or bfloat16 or float16 or int8/) // biome-ignore format: one line
    const messages = [{ role: 'user', content: 'How many shapes are there?' }] as const
    // TensorFlow's ops write no int8, the compiled kernels no float16
    const types = { float32: 'float32', bfloat16: 'bfloat16', float16: 'float16', int8: 'int8' }
    for (const [options, expected] of [
      [{}, 'float32'],
      [{ kvCache: 'int8' }, 'int8'],
      [{ quantize: 'int8' }, 'bfloat16'],
      [{ quantize: 'int8', kvCache: 'float32' }, 'float32'],
      [{ dtype: 'float16' }, 'float16']
    ] as const) {
      // biome-ignore format: one line
      const internvl = await load(undefined, options)
      await assert.rejects(answer(internvl, [messages], { kvCache: 'fp8' as 'int8' }), /kvCache: there is no "fp8"/)
      const inputs = { inputIds: tf.tensor2d([5, 6, 7, 8], [1, 4], 'int32') }
      for (const kvCache of [undefined, ...kvCacheTypes]) {
        const { cache, sequences } = await generateAll(internvl.model, inputs, { kvCache, returnCache: true, maxNewTokens: 3 })
        const type = hasKernel('CachedAttention') ? (kvCache ?? expected) : 'float32'
        const actual = usesTensorflowOps() ? { ...types, int8: 'bfloat16' } : { ...types, float16: 'float32' }
        assert.equal(cache![0]!.kv[0]!.type, actual[type])
        const again = await generateAll(internvl.model, inputs, { cache, maxNewTokens: 3 }) // the cache keeps its type
        assert.deepEqual(again.sequences, sequences)
        disposeCache(cache![0]!.kv)
      }
      inputs.inputIds.dispose()
      internvl.dispose()
    }
  })

  it('logits with a KV cache in bfloat16 are within 1 % of those in float32, in int8 within 2 %', async () => {
    const internvl = await load()
    const ids = tf.tensor2d([[...Array(40).keys()].map((i) => 5 + ((i * 7) % 90))], [1, 40], 'int32')
    const logitsWith = (kvCache: KVCacheType) =>
      tf.tidy(() => {
        const first = internvl.model({ inputIds: ids }, { useCache: true, kvCache })
        return Float32Array.from(internvl.model({ inputIds: ids }, { cache: first.cache!, useCache: true }).logits.dataSync())
      })
    const exact = logitsWith('float32')
    assert.ok(relativeL2([exact], [logitsWith('bfloat16')]) < 0.01)
    assert.ok(relativeL2([exact], [logitsWith('int8')]) < 0.02)
    ids.dispose()
    internvl.dispose()
  })

  it('image features with quantized activations are within 1 % of those with float32 activations', async () => {
    const featuresWith = async (options: PrecisionOptions) => {
      const internvl = await load(undefined, { quantize: 'int8', ...options })
      const pixels = tf.randomNormal<tf.Rank.R4>([1, 3, ...internvl.config.visionConfig.imageSize], 0, 1, 'float32', 7)
      const features = internvl.model.imageFeatures(pixels)
      const values = Float32Array.from(features.dataSync())
      tf.dispose([pixels, features])
      internvl.dispose()
      return values
    }
    const [exact, quantized] = [await featuresWith({ activations: 'float32' }), await featuresWith({})]
    assert.ok(relativeL2([exact], [quantized]) < 0.01)
  })

  it('each part has the requested precision; parts that are not named have the dtype', () =>
    check(
      fc.tuple(options, fc.boolean()),
      ([{ dtype, quantize }, tied]) => {
        const precision = precisionOf({ dtype, quantize })
        const base = { float32: undefined, bfloat16: 'bf16', float16: 'f16' }[dtype ?? (quantize ? 'bfloat16' : 'float32')]
        const asked = typeof quantize === 'object' ? quantize : { vision: quantize, decoder: quantize }
        const expectedFormat = (of: keyof typeof asked, fine = false) =>
          asked[of] === 'int4' ? (fine ? 'int6' : 'int4') : (asked[of] ?? base)
        const expected = {
          'model.vision_tower.encoder.layer.0.mlp.fc1.weight': expectedFormat('vision'),
          'model.multi_modal_projector.linear_1.weight': expectedFormat('vision'),
          'model.language_model.layers.0.mlp.up_proj.weight': expectedFormat('decoder'),
          'model.language_model.embed_tokens.weight': expectedFormat('decoder', tied),
          ...(tied ? {} : { 'lm_head.weight': expectedFormat('decoder', true) })
        }
        const formOf = formatsByKey(precision, new Map(Object.keys(expected).map((key) => [key, smallModuleSize])))
        for (const [key, wanted] of Object.entries(expected)) assert.equal(formOf(key, 'F32'), wanted, key)
      },
      60
    ))

  it('a small module has a finer format, the same for all its weights', () =>
    check(
      fc.tuple(
        options,
        fc.array(fc.nat(smallModuleSize / 2), { minLength: 1, maxLength: 4 }),
        fc.constantFrom('F32', 'BF16', 'F16') as fc.Arbitrary<'F32' | 'BF16' | 'F16'>
      ),
      ([asked, sizes, dtype]) => {
        const weights = new Map(sizes.map((size, i) => [`model.language_model.layers.0.mlp.${i}.weight`, size] as const))
        const isSmall = sizes.reduce((a, b) => a + b) < smallModuleSize
        const decoderFormat = precisionOf(asked).decoder
        const stored = { F32: 'float32', BF16: 'bf16', F16: 'f16' }[dtype]
        const wanted = !isSmall
          ? decoderFormat
          : decoderFormat === 'int4'
            ? 'int8'
            : decoderFormat === 'int8'
              ? stored
              : decoderFormat
        const formOf = formatsByKey(precisionOf(asked), weights)
        for (const key of weights.keys()) assert.equal(formOf(key, dtype) ?? 'float32', wanted)
      },
      60
    ))

  it('released models have every format as requested: InternVL3-1B, one of the smallest, has no small module', () => {
    const text_config = {
      ...{ model_type: 'qwen2', hidden_size: 896, intermediate_size: 4864, num_hidden_layers: 24, vocab_size: 151674 },
      ...{ num_attention_heads: 14, num_key_value_heads: 2 }
    }
    const config = getOrThrow(parseConfig({ model_type: 'internvl', vision_config: {}, text_config, tie_word_embeddings: false }))
    const sizes = quantizableSizes(internVL(config))
    assert.equal(sizes.size, 24 * 6 + 2 + 24 * 7 + 2)
    for (const quantize of quantizations) {
      const formOf = formatsByKey(precisionOf({ quantize }), sizes)
      const formats = new Set([...sizes.keys()].map((key) => formOf(key, 'BF16')))
      assert.deepEqual([...formats].sort(), quantize === 'int8' ? ['int8'] : ['int4', 'int6'])
    }
  })

  it('the command line sets the same options', () => {
    assert.deepEqual(parsed(askCommand, '--dtype', 'bfloat16', 'x'), { dtype: 'bfloat16' })
    assert.deepEqual(parsed(demoCommand, '--quantize', '4bit'), { quantize: '4bit' })
    assert.deepEqual(parsed(demoCommand, '--quantize', '4bit', '--cache'), { quantize: '4bit', cache: true })
    const parts = parsed(embedCommand, '--image', 'x.png', '--quantize', 'vision=int8, decoder=4bit')
    assert.deepEqual(parts, { quantize: { vision: 'int8', decoder: '4bit' } })
  })

  it('an unknown precision is refused with the list of known ones, before any file is opened', async () => {
    const refusals = [
      [['--dtype', 'float8'], /float8.*float32, bfloat16, float16/],
      [['--quantize', 'int3'], /there is no "int3"; it can be int8 or int4/],
      [['--quantize', ''], /there is no ""/],
      [['--quantize', 'vision=int8,decoder=5bit'], /"5bit"; it can be int8 or int4/],
      [['--quantize', 'tower=int8'], /"tower"; it can be vision or decoder/],
      [['--quantize', 'vision=int8,vision=4bit'], /given twice/]
    ] as const
    for (const [argv, says] of refusals) assert.match(String(parsed(askCommand, ...argv, 'x')), says)
    await assert.rejects(load(undefined, { dtype: 'float8' as never }), {
      name: 'RangeError',
      message: /float32 or bfloat16 or float16/
    })
    await assert.rejects(loadVisionEncoder(undefined, { quantize: { vision: 'int5' as never } }), /int8 or int4/)
    await assert.rejects(load(undefined, { cache: true }), { name: 'RangeError', message: /with quantize/ })
    await assert.rejects(pipeline('image-text-to-text', undefined, { quantize: 'nf4' as never }), RangeError)
  })

  it('the names of Transformers', () => {
    assert.deepEqual(loadOptions({ torchDtype: 'bfloat16' }), { dtype: 'bfloat16' })
    assert.deepEqual(loadOptions({ quantizationConfig: { loadIn4bit: true } }), { quantize: 'int4' })
    assert.deepEqual(loadOptions({ quantizationConfig: { loadIn8bit: true }, quantize: '4bit' }), { quantize: '4bit' })
    assert.throws(() => loadOptions({ quantizationConfig: { loadIn8bit: true, loadIn4bit: true } }), /only one/)
  })

  it('the demo model gives equal answers in each precision, logits within 2 and 10 %, weights in the requested format, and leaks no tensor', async () => {
    const content = [{ type: 'image', path: image } as const, { type: 'text', text: 'Describe the image.' } as const]
    const question = { role: 'user', content } as const
    const before = tf.memory().numTensors
    let exact: Float32Array | undefined
    const rounding = usesTensorflowOps() ? 0.01 : 0.001 // TensorFlow's ops round the inputs of a product too, not its weights alone
    for (const [asked, most] of [
      [{}, 0],
      [{ dtype: 'bfloat16' }, rounding],
      [{ dtype: 'float16' }, rounding / 4], // two more bits than bfloat16
      [{ quantize: 'int8' }, 0.02],
      [{ quantize: '4bit' }, 0.1]
    ] as const) {
      const internvl = await load(undefined, asked)
      const { texts } = await answer(internvl, [[question]])
      if (most < 0.1) assert.deepEqual(texts, [described])
      const { logits } = await answerLogits(internvl, [question, { role: 'assistant', content: described }])
      const answerValues = logits.dataSync() as Float32Array
      logits.dispose()
      exact ??= answerValues
      const error = relativeL2([answerValues], [exact])
      assert.ok(error <= most, `${JSON.stringify(asked)}: ${error}`)
      const names = namedParameters(internvl.params).map(([key]) => key)
      const packed = 'model.language_model.layers.0.mlp.up_proj.weight'
      const format = formatsByKey(precisionOf(asked), new Map([[packed, smallModuleSize]]))(packed, 'BF16')
      assert.ok(names.includes(format && keepsQuantized(format) ? `${packed}.${format}` : packed))
      internvl.dispose()
    }
    assert.equal(tf.memory().numTensors, before)
  })

  it('the vision encoder and the classes accept a precision; a class counts parameters, not packed integers', async () => {
    const [plain, packed] = [await loadVisionEncoder(), await loadVisionEncoder(undefined, { quantize: 'int8' })]
    const [a, b] = [await embed(plain, [image]), await embed(packed, [image])]
    const error = distance(Array.from(a.values.dataSync()), Array.from(b.values.dataSync()))
    assert.ok(error > 0 && error < 0.05, String(error))
    for (const encoder of [plain, packed]) encoder.dispose()
    tf.dispose([a.values, b.values])
    const [whole, small] = [
      await InternVLForConditionalGeneration.fromPretrained(),
      await InternVLForConditionalGeneration.fromPretrained(undefined, { quantizationConfig: { loadIn4bit: true } })
    ]
    assert.equal(small.numParameters(), whole.numParameters())
    for (const model of [whole, small]) model.dispose()
  })
})
