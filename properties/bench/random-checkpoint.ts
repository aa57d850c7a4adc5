import { copyFile, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Command, Option } from 'commander'
import { demoModel } from '../../generation/checkpoint/load.js'
import { fromFloat32 } from '../../lib/dtype.js'
import { getOrThrow, orThrow } from '../../lib/error.js'
import { declarations } from '../../lib/params.js'
import { writeCheckpointTensors } from '../../lib/safetensors/write.js'
import { sizeOf } from '../../lib/shape.js'
import { parseConfig } from '../../models/config/parse-config.js'
import { internVL } from '../../models/internvl/internvl.js'
import { loadProcessor } from '../../processors/processor.js'

const decoder = (
  hidden_size: number,
  intermediate_size: number,
  num_hidden_layers: number,
  num_attention_heads: number,
  num_key_value_heads: number,
  rest = {}
) => ({
  ...{ model_type: 'qwen2', hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, num_key_value_heads },
  ...{ vocab_size: 151674, max_position_embeddings: 32768, rope_theta: 1e6, tie_word_embeddings: false },
  ...rest
})

/** Decoder shapes of released checkpoints; all use the vision tower of 300 M parameters. */
const shapes = {
  'internvl3-1b': decoder(896, 4864, 24, 14, 2),
  'internvl3-2b': decoder(1536, 8960, 28, 12, 2),
  'internvl3.5-1b': decoder(1024, 3072, 28, 16, 8, { model_type: 'qwen3', head_dim: 128, vocab_size: 151936 })
}

/** Pseudo-random weights with a standard deviation of 0.02; speed does not depend on the values. */
const noise = (length: number, seed: number): Float32Array => {
  const values = new Float32Array(length)
  let state = (seed * 2654435761 + 1) >>> 0
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    values[i] = (state / 2 ** 32 - 0.5) * 0.07
  }
  return values
}

const write = async (like: keyof typeof shapes, out: string): Promise<void> => {
  const { tokenizer } = await orThrow(loadProcessor(demoModel))
  const json = {
    architectures: ['InternVLForConditionalGeneration'],
    model_type: 'internvl',
    dtype: 'bfloat16',
    image_token_id: tokenizer.idOf('<IMG_CONTEXT>'),
    image_seq_length: 256,
    tie_word_embeddings: false,
    vision_config: { model_type: 'internvl_vision', attention_bias: true },
    text_config: shapes[like]
  }
  await mkdir(out, { recursive: true })
  await writeFile(join(out, 'config.json'), JSON.stringify(json, null, 2))
  for (const name of [
    'tokenizer.json',
    'tokenizer_config.json',
    'chat_template.jinja',
    'generation_config.json',
    'processor_config.json'
  ])
    await copyFile(join(demoModel, name), join(out, name))
  const leaves = declarations(internVL(getOrThrow(parseConfig(json))))
  const tensors = leaves.map(([key, { shape }], i) => ({
    key,
    dtype: 'BF16' as const,
    shape,
    bytes: async () => fromFloat32(noise(sizeOf(shape), i), 'BF16')
  }))
  await orThrow(writeCheckpointTensors(out, tensors, { shardBytes: 5e9 }))
  const parameters = leaves.reduce((n, [, { shape }]) => n + sizeOf(shape), 0)
  console.log(`${out}: ${(parameters / 1e6).toFixed(1)} M parameters, like ${like}`)
}

await new Command('bench:checkpoint')
  .description('write a full-size checkpoint with random weights, to measure speed and memory (not quality)')
  .addOption(
    new Option('--like <name>', 'released model whose shape is used').choices(Object.keys(shapes)).default('internvl3-1b')
  )
  .requiredOption('--out <dir>', 'the folder to write')
  .action(({ like, out }: { like: keyof typeof shapes; out: string }) => write(like, out))
  .parseAsync()
