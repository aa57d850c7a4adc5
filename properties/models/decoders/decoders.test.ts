import { decoderConfig, type ModelType } from '../../arbitraries/decoder-config.js'
import { decoderLaws } from '../../laws/decoder-laws.js'

const modelTypes: readonly ModelType[] = ['qwen2', 'qwen3', 'llama', 'phi3', 'qwen3_moe', 'gpt_oss']

for (const modelType of modelTypes) decoderLaws(modelType, decoderConfig(modelType))
