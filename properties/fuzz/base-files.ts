import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const demo = fileURLToPath(new URL('../../models/demo', import.meta.url))

/** Text of a file of the demo model. */
export const demoText = (name: string): string => readFileSync(`${demo}/${name}`, 'utf8')
const json = (name: string) => JSON.parse(demoText(name))

const { text_config: text, vision_config: vision, ...config } = json('config.json')

/** The demo model's configuration with small sizes: 16 channels, two layers, one token a tile of 28 pixels. */
export const demoConfig = {
  ...config,
  image_seq_length: 1,
  text_config: {
    ...text,
    hidden_size: 16,
    intermediate_size: 24,
    num_hidden_layers: 2,
    layer_types: ['full_attention', 'full_attention'],
    num_attention_heads: 4,
    num_key_value_heads: 2,
    max_position_embeddings: 256
  },
  vision_config: {
    ...vision,
    hidden_size: 16,
    intermediate_size: 24,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    image_size: [28, 28]
  }
}

const processor = json('processor_config.json')
const size = { height: 28, width: 28 }

/** The demo model's processor configuration for tiles of 28 pixels. */
export const processorConfig = {
  ...processor,
  image_seq_length: 1,
  image_processor: { ...processor.image_processor, size, crop_to_patches: true, max_patches: 4 },
  video_processor: { ...processor.video_processor, size, do_sample_frames: true, num_frames: 2 }
}

export const tokenizerJson = json('tokenizer.json')
export const tokenizerConfig = json('tokenizer_config.json')
export const generationConfig = json('generation_config.json')
