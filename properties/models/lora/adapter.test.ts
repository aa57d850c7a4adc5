import assert from 'node:assert/strict'
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import * as E from 'fp-ts/lib/Either.js'
import { load } from '../../../generation/checkpoint/load.js'
import { valueAndGrad } from '../../../lib/autograd/grad.js'
import { getOrThrow, orThrow } from '../../../lib/error.js'
import { combine, mapParams, namedParameters, partition } from '../../../lib/params.js'
import { tf } from '../../../lib/tf.js'
import type { InternVLParams } from '../../../models/checkpoint/load-model.js'
import { loadAdapter, saveAdapter } from '../../../models/lora/adapter.js'
import { addLora, isLoraPath, type LoraOptions, mergeLora, shapesWithoutLora, withoutLora } from '../../../models/lora/lora.js'
import { randomTensor } from '../../arbitraries/tensor.js'
import { check } from '../../laws/check.js'
import { assertClose } from '../../laws/close.js'

describe('LoRA and adapters', () => {
  let demo: Awaited<ReturnType<typeof load>>
  let dir: string
  before(async () => {
    demo = await load()
    dir = await mkdtemp(join(tmpdir(), 'adapter-'))
  })
  after(async () => {
    demo.dispose()
    await rm(dir, { recursive: true })
  })

  const options = (more: Partial<LoraOptions> = {}): LoraOptions => ({ rank: 3, alpha: 7, targets: ['q_proj', 'mlp.*'], ...more })
  /** LoRA weights with a random B instead of zeros. */
  const withLora = (more?: Partial<LoraOptions>): InternVLParams => {
    let n = 0
    const fresh = getOrThrow(addLora(demo.params, options(more)))
    return mapParams((leaf, path) => (/lora_B$/.test(path) ? randomTensor([...leaf.shape], ++n, 0.1) : leaf))(fresh)
  }
  const logits = (params: InternVLParams) =>
    demo.module.apply(params)({ inputIds: tf.tensor2d([[5, 9, 60, 7]], undefined, 'int32') }).logits
  const folder = (name: string) => join(dir, name)
  const messages = (found: E.Either<readonly { readonly message: string }[], unknown>): readonly string[] =>
    E.isLeft(found) ? found.left.map(({ message }) => message) : assert.fail('no error')

  it('a zero B changes no output, and withoutLora restores the tree', () =>
    tf.tidy(() => {
      const lora = getOrThrow(addLora(demo.params, options()))
      assert.deepEqual(logits(lora).dataSync(), logits(demo.params).dataSync())
      assert.deepEqual(namedParameters(withoutLora(lora)), namedParameters(demo.params))
    }))

  it('merged weights give the outputs of separate weights', () =>
    check(fc.record({ rank: fc.integer({ min: 1, max: 5 }), alpha: fc.constantFrom(1, 4, 16), seed: fc.nat(99) }), (sample) => {
      const lora = withLora(sample)
      assert.ok(namedParameters(lora).some(([path]) => isLoraPath(path)))
      assertClose(logits(mergeLora(lora)), logits(lora), 1e-4)
      assert.throws(() => assertClose(logits(lora), logits(demo.params), 1e-4))
    }, 3)) // biome-ignore format: one line

  it('a saved adapter loads with the same numbers, for any targets', async () => {
    for (const [name, more] of Object.entries<Partial<LoraOptions>>({
      plain: {},
      dropout: { dropout: 0.25 },
      some: { targets: [/model\.language_model\.layers\.[12]\..*(q_proj|down_proj)/] }
    })) {
      const lora = withLora(more)
      await orThrow(saveAdapter(folder(name), lora, { base: 'some/base' }))
      const loaded = await orThrow(loadAdapter(folder(name), demo.params))
      const [before, after] = [lora, loaded].map((tree) => namedParameters(tree).map(([path, x]) => [path, x.dataSync()]))
      assert.deepEqual(after, before)
      assert.deepEqual((await readdir(folder(name))).sort(), ['adapter_config.json', 'adapter_model.safetensors'])
    }
  })

  it('modules trained beside LoRA are saved whole and load with the same numbers', async () => {
    const moved = /multi_modal_projector\.|layers\.0\.input_layernorm|linear_1\.bias/
    const lora = mapParams((leaf, path) => (moved.test(path) ? randomTensor([...leaf.shape], path.length) : leaf))(withLora())
    const paths = [...shapesWithoutLora(lora).keys()].filter((path) => moved.test(path))
    for (const [name, beside, modules] of [
      ['whole', paths, ['model.multi_modal_projector', 'model.language_model.layers.0.input_layernorm']],
      ['part', ['model.multi_modal_projector.linear_1.bias'], ['model.multi_modal_projector.linear_1']]
    ] as const) {
      await orThrow(saveAdapter(folder(name), lora, { beside }))
      const { modules_to_save } = JSON.parse(await readFile(join(folder(name), 'adapter_config.json'), 'utf8'))
      assert.deepEqual([...modules_to_save].sort(), [...modules].sort())
      const loaded = new Map(namedParameters(await orThrow(loadAdapter(folder(name), demo.params))))
      const saved = (path: string) => isLoraPath(path) || modules.some((module) => path.startsWith(module))
      for (const [path, leaf] of namedParameters(lora))
        if (saved(path)) assert.deepEqual(loaded.get(path)!.dataSync(), leaf.dataSync())
      for (const [path, leaf] of namedParameters(demo.params)) if (!saved(path)) assert.ok([loaded.get(path), loaded.get(`${path}.base`)].includes(leaf), path) // biome-ignore format: one line
    }
    const beside = ['model.language_model.layers.1.self_attn.q_proj.weight']
    const found = messages(await saveAdapter(folder('not'), lora, { beside })()).join('\n')
    assert.match(found, /q_proj: PEFT saves whole modules, and this module contains LoRA/)
  })

  it('DoRA, rsLoRA, biases and embeddings are saved and load with the same outputs, and merge to them', async () => {
    for (const [name, more, beside] of [
      ['dora', { useDora: true, useRslora: true }, /layers\.[01]\.self_attn\.q_proj\.bias/],
      ['embeddings', { targets: ['embed_tokens', 'v_proj'] }, /nothing/],
      ['biases', {}, /\.bias$/]
    ] as const) {
      const moved = mapParams((leaf, path) => (beside.test(path) || /magnitude/.test(path) ? leaf.add(randomTensor([...leaf.shape], path.length, 0.1)) : leaf))(withLora(more)) // biome-ignore format: one line
      const paths = [...shapesWithoutLora(moved).keys()].filter((path) => beside.test(path))
      await orThrow(saveAdapter(folder(name), moved, { beside: paths }))
      const config = JSON.parse(await readFile(join(folder(name), 'adapter_config.json'), 'utf8'))
      assert.deepEqual([config.bias, config.use_dora, config.modules_to_save], [{ dora: 'lora_only', embeddings: 'none', biases: 'all' }[name], name === 'dora', null]) // biome-ignore format: one line
      const loaded = await orThrow(loadAdapter(folder(name), demo.params))
      tf.tidy(() => {
        assertClose(logits(loaded), logits(moved), 1e-5)
        assertClose(logits(mergeLora(moved)), logits(moved), 1e-4)
        assert.throws(() => assertClose(logits(loaded), logits(demo.params), 1e-4))
      })
    }
  })

  it('a fresh DoRA computes the base, and its gradient reaches A, B and the magnitudes', () =>
    tf.tidy(() => {
      const fresh = getOrThrow(addLora(demo.params, options({ useDora: true })))
      assertClose(logits(fresh), logits(demo.params), 1e-5)
      const [trained, frozen] = partition(isLoraPath)(withLora({ useDora: true }))
      const { grads } = valueAndGrad((p: typeof trained) => logits(combine<InternVLParams>(p, frozen)).square().mean() as tf.Scalar)(trained) // biome-ignore format: one line
      const moved = namedParameters(grads).filter(([, g]) => g.abs().max().dataSync()[0]! > 0)
      for (const part of ['lora_A', 'lora_B', 'lora_magnitude_vector'])
        assert.ok(
          moved.some(([path]) => path.endsWith(part)),
          part
        )
    }))

  it('names of the first Transformers layout and of the original one, and of a wrapped decoder, load as those of the tree', async () => {
    const lora = withLora({ targets: ['language_model.**.q_proj', 'language_model.**.down_proj'] })
    await orThrow(saveAdapter(folder('tree'), lora))
    const bytes = await readFile(join(folder('tree'), 'adapter_model.safetensors'))
    const size = Number(bytes.readBigUInt64LE())
    const header = bytes.subarray(8, 8 + size).toString()
    for (const [name, prefix] of [
      ['first', 'language_model.model.'],
      ['wrapped', 'model.'],
      ['inner', '']
    ] as const) {
      const renamed = Buffer.from(header.replaceAll('base_model.model.model.language_model.', `base_model.model.${prefix}`))
      const length = Buffer.alloc(8)
      length.writeBigUInt64LE(BigInt(renamed.length))
      await cp(folder('tree'), folder(name), { recursive: true })
      await writeFile(join(folder(name), 'adapter_model.safetensors'), Buffer.concat([length, renamed, bytes.subarray(8 + size)]))
      const loaded = await orThrow(loadAdapter(folder(name), demo.params))
      tf.tidy(() => assert.deepEqual(logits(loaded).dataSync(), logits(lora).dataSync(), name))
    }
  })

  it('saved modules that do not fit are errors, one for each key', async () => {
    const path = join(folder('part'), 'adapter_config.json')
    const config = JSON.parse(await readFile(path, 'utf8'))
    const refused = async (modules_to_save: unknown) => {
      await writeFile(path, JSON.stringify({ ...config, modules_to_save }))
      return messages(await loadAdapter(folder('part'), demo.params)()).join('\n')
    }
    assert.match(await refused(['linear_2', 'nothing']), /no module nothing[\s\S]*no parameter \S*linear_1.bias in a saved module[\s\S]*linear_2.bias is missing/) // biome-ignore format: one line
    assert.match(await refused(null), /linear_1.bias is not a LoRA weight/)
    assert.match(await refused('linear_1'), /modules_to_save must be a list of names/)
    assert.match(await refused(['linear_1', 'embed_tokens']), /embed_tokens.weight is missing from a saved module/)
  })

  it('an adapter for another model: every mismatch is listed', async () => {
    await orThrow(saveAdapter(folder('other'), withLora()))
    const path = join(folder('other'), 'adapter_config.json')
    const config = JSON.parse(await readFile(path, 'utf8'))
    await writeFile(path, JSON.stringify({ ...config, r: 4, target_modules: [...config.target_modules, 'k_proj'] }))
    const found = messages(await loadAdapter(folder('other'), demo.params)())
    assert.ok(found.some((message) => /q_proj\.lora_A\.weight: expected shape \[4,160\], got \[3,160\]/.test(message)))
    assert.ok(found.some((message) => /k_proj\.lora_A\.weight is missing, though adapter_config.json targets/.test(message)))
    const vision = {
      model: { vision_tower: (demo.params as unknown as { model: { vision_tower: unknown } }).model.vision_tower }
    }
    assert.ok(
      messages(await loadAdapter(folder('plain'), vision)()).some((message) => /this model has no linear layer/.test(message))
    )
  })

  it('invalid configurations are errors, one for each field', async () => {
    const path = join(folder('plain'), 'adapter_config.json')
    const config = JSON.parse(await readFile(path, 'utf8'))
    const refused = async (change: object) => {
      await writeFile(path, JSON.stringify({ ...config, ...change }))
      return messages(await loadAdapter(folder('plain'), demo.params)())
    }
    const both = await refused({ r: 0, lora_bias: true, bias: 'some' })
    assert.equal(both.length, 3)
    assert.match(both.join('\n'), /lora_bias is not supported\n.*r must be an integer of 1 or more, got 0\n.*bias must be "none", "all", "lora_only", got "some"/) // biome-ignore format: one line
    for (const [
      pattern,
      syntax
    ] of [['(?P<part>q)_proj', '(?P<part>'], ['.*q_proj\\Z', '\\Z'], ['(?i).*Q_PROJ', '(?i)'], ['.*+q_proj', '*+']] as const) // biome-ignore format: one line
      assert.ok((await refused({ target_modules: pattern })).join().includes(`(${syntax} is not JavaScript)`), pattern)
    assert.ok(!E.isLeft(await loadAdapter(folder('some'), demo.params)()))
    assert.match(
      (await refused({ target_modules: '(' })).join(),
      /target_modules is a regular expression that only Python reads, .*list the names of the modules/
    )
    assert.match((await refused({ target_modules: 3 })).join(), /target_modules must be a list of names or a regular expression/)
    assert.match((await refused({ layers_to_transform: ['a'] })).join(), /layers_to_transform must be a layer index/)
    const slow = { target_modules: '(.*)*x', rank_pattern: { '(q+)+-': 2 } } // times that grow exponentially with the path
    assert.match((await refused(slow)).join(), /the regular expression .* takes more than 1 s/)
    assert.match(
      messages(await loadAdapter(folder('nowhere'), demo.params)()).join(),
      /no such file; give the folder of a PEFT adapter/
    )
    assert.match(messages(await saveAdapter(folder('x'), demo.params)()).join(), /no LoRA weights to save/)
  })

  it('invalid options are errors, all together', () => {
    const found = messages(addLora(demo.params, { rank: 0, alpha: 0, targets: ['nothing', 'q_proj'] }))
    assert.deepEqual(found.length, 3)
    assert.match(found.join('\n'), /rank must be.*\n.*alpha must be.*\n.*no linear layer matches nothing/)
  })
})
