import assert from 'node:assert/strict'
import fc from 'fast-check'
import { hasKernel } from '../../../lib/ops/kernel.js'
import type { Hidden } from '../../../models/decoders/decoder.js'
import { decoderFor } from '../../../models/decoders/index.js'
import { decoderConfig, type ModelType } from '../../arbitraries/decoder-config.js'
import { randomParams, randomTensor } from '../../arbitraries/tensor.js'
import { watchOps } from '../../bench/measure/watch-ops.js'
import { check } from '../../laws/check.js'
import { decoderLaws } from '../../laws/decoder-laws.js'

const modelTypes: readonly ModelType[] = ['qwen2', 'qwen3', 'llama', 'phi3', 'qwen3_moe', 'gpt_oss']

for (const modelType of modelTypes) decoderLaws(modelType, decoderConfig(modelType))

/** The decoders whose layers are one op; the layers of the others have experts or stacked projections. */
const fusedTypes: readonly ModelType[] = ['qwen2', 'qwen3', 'llama']

describe('fused decoding', () => {
  for (const modelType of fusedTypes)
    it(`${modelType}: all layers and the norm are one op`, function () {
      if (!hasKernel('DecoderLayers')) return this.skip()
      return check(fc.tuple(decoderConfig(modelType)), ([c]) => {
        const module = decoderFor(c)
        const decode = module.apply(randomParams(module, 1))
        const x = randomTensor<Hidden>([1, 2, c.hiddenSize], 2)
        const stop = watchOps()
        try {
          decode(x, { useCache: true })
        } finally {
          assert.equal(stop().find(({ op }) => op === 'DecoderLayers')?.calls, 1)
        }
      })
    })
})
