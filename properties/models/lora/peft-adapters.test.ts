import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { load } from '../../../generation/checkpoint/load.js'
import { fromFloat32 } from '../../../lib/dtype.js'
import { getOrThrow, orThrow } from '../../../lib/error.js'
import { buildParams, declarations, disposeParams, namedParameters } from '../../../lib/params.js'
import { writeSafetensorsFolder } from '../../../lib/safetensors/write.js'
import { sizeOf } from '../../../lib/shape.js'
import { tf } from '../../../lib/tf.js'
import { type Layout, planFile } from '../../../models/checkpoint/layout.js'
import type { Json } from '../../../models/config/config-fields.js'
import { parseConfig } from '../../../models/config/parse-config.js'
import { modelFor } from '../../../models/families.js'
import { loadAdapter } from '../../../models/lora/adapter.js'
import { mergeLora } from '../../../models/lora/lora.js'
import reference from '../../reference/formats/adapters.json' with { type: 'json' }

type Shapes = Readonly<Record<string, readonly number[]>>
interface Case {
  readonly name: string
  readonly model: string
  readonly config: Json
  readonly keys: Shapes
  readonly logits: readonly number[]
}
interface OriginalCase {
  readonly name: string
  readonly config: Json
  readonly keys: Shapes
  readonly rows: Readonly<Record<string, readonly number[]>>
}
const cases = reference.cases as unknown as readonly Case[]

/** The numbers of a tensor, as make_adapters.py computes them. */
const valuesOf = (key: string, shape: readonly number[]): Float32Array => {
  const salt = 0.37 * ([...key].reduce((sum, c, i) => sum + (i + 1) * c.charCodeAt(0), 0) % 997)
  const isNear1 = key.includes('magnitude') || (key.includes('norm') && key.endsWith('weight'))
  const wave = (i: number) => Math.sin(0.7 * i + salt)
  return Float32Array.from({ length: sizeOf(shape) }, (_, i) => (isNear1 ? 1 + 0.2 * wave(i) : 0.2 * wave(i)))
}

const transposed = (values: Float32Array, [rows, columns]: readonly [number, number]): Float32Array =>
  values.map((_, i) => values[(i % rows) * columns + Math.floor(i / rows)]!)

/** The numbers of a key of an adapter: a tied head has the LoRA of the embeddings. */
const adapterValues = (name: string, key: string, keys: Shapes): Float32Array => {
  const embeddings = (part: string) => `base_model.model.model.language_model.embed_tokens.${part}`
  const [, part] = /lm_head\.(.*)$/.exec(key) ?? []
  if (key.endsWith('.base_layer.weight')) return embeddingWeights
  if (!name.includes('tied') || part === undefined) return valuesOf(key, keys[key]!)
  const of = { 'lora_A.weight': 'lora_embedding_B', 'lora_B.weight': 'lora_embedding_A' }[part]
  if (!of) return valuesOf(embeddings(part), keys[key]!)
  return transposed(valuesOf(embeddings(of), keys[embeddings(of)]!), keys[embeddings(of)] as [number, number])
}

/** The embeddings of the demo model, which PEFT saves with LoRA on embeddings. */
let embeddingWeights = new Float32Array()

describe('adapters that PEFT 0.21 saved', () => {
  let dir: string
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'peft-'))
    const demo = await load()
    embeddingWeights = new Float32Array((demo.params.model.language_model.embed_tokens.weight as tf.Tensor).dataSync())
    demo.dispose()
  })
  after(() => rm(dir, { recursive: true }))

  const write = async (name: string, config: unknown, keys: Shapes, rename = (key: string) => key): Promise<string> => {
    const folder = join(dir, name.replaceAll(/\W+/g, '-'))
    const sources = Object.keys(keys).map((key) => ({
      key: rename(key),
      dtype: 'F32' as const,
      shape: keys[key]!,
      bytes: async function* () {
        yield fromFloat32(adapterValues(name, key, keys), 'F32')
      }
    }))
    await orThrow(
      writeSafetensorsFolder(
        folder,
        'adapter_model.safetensors',
        sources,
        new Map([['adapter_config.json', JSON.stringify(config)]])
      )
    )
    return folder
  }
  const imagePrompt = (imageTokenId: number) => ({
    inputIds: tf.tensor2d([[5, 9, ...Array<number>(16).fill(imageTokenId), 60, 7]], undefined, 'int32'),
    pixelValues: tf.linspace(-2, 2, 3 * 112 * 112).reshape<tf.Tensor4D>([1, 3, 112, 112])
  })
  const assertLogits = (logits: tf.Tensor, expected: readonly number[], name: string) => {
    const [most, actual] = [Math.max(...expected.map(Math.abs)), Array.from(logits.dataSync()).slice(-expected.length)]
    const distance = Math.max(...actual.map((x, i) => Math.abs(x - expected[i]!)))
    assert.ok(distance < 1e-4 * most, `${name}: logits are at a distance of ${distance}, of ${most}`)
  }

  for (const { name, model, config, keys, logits } of cases.filter(({ model }) => model === 'demo'))
    it(`${name}: PEFT's logits, on ${model}`, async () => {
      const internvl = await load(undefined, { adapter: await write(name, config, keys) })
      try {
        tf.tidy(() => assertLogits(internvl.model(imagePrompt(internvl.config.imageTokenId!)).logits, logits, name))
      } finally {
        internvl.dispose()
      }
    })

  for (const { name, model, config, keys, logits } of cases.filter(({ model }) => model !== 'demo'))
    it(`${name}: PEFT's logits, beside the weights and merged`, async () => {
      const json = reference.configs[model as keyof typeof reference.configs]
      const parsed = getOrThrow(parseConfig(json as unknown as Json, 'config.json'))
      const module = modelFor(parsed)
      const params = buildParams(module, (path, { shape }) => tf.tensor(valuesOf(path, shape), [...shape]))
      const onLayer1 = { ...config, exclude_modules: '.*language_model.*layers\\.0\\..*' } as Json // the adapter's own model had layer 1 alone
      const adapted = await orThrow(loadAdapter(await write(name, onLayer1, keys), params, module, parsed.textConfig))
      tf.tidy(() => {
        const logitsOf = (p: typeof params) =>
          module.apply(p)({ inputIds: tf.tensor2d([[5, 9, 60, 7, 33, 5]], undefined, 'int32') }).logits
        assertLogits(logitsOf(adapted), logits, name)
        assertLogits(logitsOf(mergeLora(adapted)), logits, name)
      })
      disposeParams([params, adapted])
    })

  for (const { name, config, keys, rows } of reference.original as unknown as readonly OriginalCase[])
    it(`${name}: PEFT's merged weights, with fused projections`, async () => {
      const layout: Layout = name.startsWith('original-internlm2') ? 'original-internlm2' : 'original'
      const { text_config, ...json } = reference.configs.qwen3_moe
      const parsed = getOrThrow(parseConfig({ ...json, text_config: { ...text_config, model_type: 'llama' } } as unknown as Json, 'config.json')) // biome-ignore format: one line
      const module = modelFor(parsed)
      const described = declarations(module).map(([key, { shape }]) => ({ key, dtype: 'F32' as const, shape }))
      const planned = getOrThrow(planFile(layout, described, parsed.textConfig))
      const tree = new Map(described.map(({ key, shape }) => [key, new Float32Array(sizeOf(shape))]))
      for (const { key, shape, parts } of planned) {
        const values = valuesOf(key, shape)
        let at = 0
        for (const { source, begin, end } of parts) {
          tree.get(source)!.set(values.subarray(at, at + (end - begin) / 4), begin / 4)
          at += (end - begin) / 4
        }
      }
      const params = buildParams(module, (path, { shape }) => tf.tensor(tree.get(path)!, [...shape]))
      const onLayer1 = { ...config, exclude_modules: '.*language_model.*layers\\.0\\..*' } as Json // the adapter's own model had layer 1 alone
      const adapted = await orThrow(loadAdapter(await write(name, onLayer1, keys), params, module, parsed.textConfig))
      const mergedTree = mergeLora(adapted)
      const merged = new Map(namedParameters(mergedTree).map(([path, leaf]) => [path, leaf.dataSync()]))
      for (const { key, shape, parts } of planned) {
        const values = Float32Array.from(
          parts.flatMap(({ source, begin, end }) => [...merged.get(source)!.slice(begin / 4, end / 4)])
        )
        for (const [row, expected] of (rows[key] ?? []).entries()) {
          const columns = shape[1]!
          const sum = values.subarray(row * columns, (row + 1) * columns).reduce((total, x, j) => total + x * Math.sin(j), 0)
          assert.ok(Math.abs(sum - expected) < 1e-4, `${key}, row ${row}: ${sum} for ${expected}`)
        }
      }
      assert.ok(planned.filter(({ key }) => key in rows).length >= Object.keys(rows).length)
      disposeParams([params, adapted, mergedTree])
    })
})
