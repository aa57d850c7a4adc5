import { load } from '../../../generation/checkpoint/load.js'
import { getOrThrow, orThrow } from '../../../lib/error.js'
import { mapParams } from '../../../lib/params.js'
import { tf } from '../../../lib/tf.js'
import { loadAdapter, saveAdapter } from '../../../models/lora/adapter.js'
import { addLora, type LoraOptions, shapesWithoutLora } from '../../../models/lora/lora.js'

// `tsx adapter-logits.ts save DIR KIND` writes an adapter for the demo model, `load DIR` opens one. Both print logits, for adapter.py.
const [, , action, dir, kind = 'names'] = process.argv
interface AdapterKind {
  readonly options?: Partial<LoraOptions>
  /** Tensors that are trained beside LoRA, and saved with it. */
  readonly beside: RegExp
}

const targets = { targets: ['q_proj', 'v_proj', /model\.vision_tower\..*\.fc1/] }
const besideLora = /linear_2|language_model\.norm/
const kinds: Readonly<Record<string, AdapterKind>> = {
  names: { options: { dropout: 0.1 }, beside: besideLora },
  dora: { options: { useDora: true, useRslora: true }, beside: besideLora },
  embeddings: { options: { targets: ['embed_tokens', 'q_proj'] }, beside: /^$/ },
  biases: { beside: /\.bias$/ }
}
const { options, beside: besidePattern } = kinds[kind]!
const internvl = await load()
const randomAdapter = () => {
  let seed = 0
  const params = getOrThrow(addLora(internvl.params, { rank: 4, alpha: 6, ...targets, ...options }))
  const noise = (leaf: tf.Tensor) => tf.randomNormal(leaf.shape, 0, 0.1, 'float32', ++seed)
  const perturb = (leaf: tf.Tensor, path: string) => {
    if (path.endsWith('lora_B')) return noise(leaf)
    return /magnitude/.test(path) || besidePattern.test(path) ? leaf.add(noise(leaf)) : leaf
  }
  return mapParams(perturb)(params)
}
const params = action === 'save' ? randomAdapter() : await orThrow(loadAdapter(dir!, internvl.params))
const beside = [...shapesWithoutLora(params).keys()].filter((path) => besidePattern.test(path))
if (action === 'save') await orThrow(saveAdapter(dir!, params, { base: 'models/demo', beside }))
const ids = [5, 9, ...Array<number>(16).fill(internvl.config.imageTokenId!), 60, 7]
const pixelValues = tf.linspace(-2, 2, 3 * 112 * 112).reshape<tf.Tensor4D>([1, 3, 112, 112])
const { logits } = internvl.module.apply(params)({ inputIds: tf.tensor2d([ids], undefined, 'int32'), pixelValues })
console.log(JSON.stringify(Array.from(logits.dataSync())))
