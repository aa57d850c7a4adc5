import assert from 'node:assert/strict'
import { access, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { demoModel, type InternVLCheckpoint, type LoadOptions, load } from '../../../generation/checkpoint/load.js'
import { convert } from '../../../generation/checkpoint/save.js'
import { mergeCommand } from '../../../generation/cli/commands/merge-command.js'
import { type FineTuneOptions, fineTune } from '../../../generation/train/fine-tune.js'
import { merge } from '../../../generation/train/merge.js'
import { trainConfig } from '../../../generation/train/train-config.js'
import { getOrThrow } from '../../../lib/error.js'
import { namedParameters } from '../../../lib/params.js'
import { tf } from '../../../lib/tf.js'

const image = fileURLToPath(new URL('../../../generation/demo/circle.png', import.meta.url))
const row = { image, conversations: [{ from: 'human', value: '<image>\nWhat?' }, { from: 'gpt', value: 'A lonely circle.' }] } // biome-ignore format: one line

describe('trained weights, as an adapter and merged', () => {
  let folder: string
  const at = (...names: readonly string[]) => join(folder, ...names)
  const isThere = (path: string) => access(path).then(() => true, () => false) // biome-ignore format: one line

  /** Trains LoRA on the demo model; returns whether training finished. */
  const tuned = async (name: string, options: Partial<FineTuneOptions> = {}, more: object = {}) => {
    const settings = { output: at(name), data: at('train.jsonl'), steps: 2, lora: { rank: 2 }, save: { dtype: 'float32' } }
    const config = getOrThrow(
      trainConfig({ ...settings, ...more, optimizer: { learningRate: 1e-2, schedule: 'constant', warmupRatio: 0 } })
    )
    const internvl = await load()
    const isFinished = await fineTune(internvl, config, { checkpoints: at(name, 'checkpoints'), workers: 0, ...options })
    internvl.dispose()
    return isFinished
  }
  const using = async <A>(name: string | undefined, options: LoadOptions, use: (internvl: InternVLCheckpoint) => A) => {
    const internvl = await load(name, options)
    try {
      return use(internvl)
    } finally {
      internvl.dispose()
    }
  }
  const weights = (name: string | undefined, options: LoadOptions = {}) =>
    using(name, options, ({ params }) => new Map(namedParameters(params).map(([path, leaf]) => [path, leaf.dataSync()])))
  const logits = (name: string | undefined, options: LoadOptions = {}) =>
    using(name, options, ({ model }) => tf.tidy(() => model({ inputIds: tf.tensor2d([[5, 9, 60, 7]], undefined, 'int32') }).logits.dataSync())) // biome-ignore format: one line
  const distance = (a: ArrayLike<number>, b: ArrayLike<number>) => Math.max(...Array.from(a, (x, i) => Math.abs(x - b[i]!)))

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'merge-'))
    await writeFile(at('train.jsonl'), `${JSON.stringify(row)}\n`)
    assert.equal(await tuned('tuned'), true)
  })
  after(() => rm(folder, { recursive: true, force: true }))

  it('the result, the model with the adapter, and both ways to merge have equal weights', async () => {
    const result = await weights(at('tuned'))
    assert.deepEqual(await weights(undefined, { adapter: at('tuned', 'adapter') }), result)
    const begun = tf.memory().numTensors
    await merge(at('tuned', 'adapter'), at('a'), { dtype: 'float32' })
    await merge(at('tuned'), at('b'), { dtype: 'float32' })
    assert.equal(tf.memory().numTensors, begun)
    for (const merged of ['a', 'b']) assert.deepEqual(await weights(at(merged)), result)
    assert.notDeepEqual(await weights(undefined), result)
  })

  it('merges into a sharded model of the original layout with fused tensors', async () => {
    await convert(demoModel, at('original'), { layout: 'original', dtype: 'float32', shardBytes: 2e6 })
    for (const [source, name] of [[at('tuned', 'adapter'), 'c'], [at('tuned'), 'd']] as const) {
      await merge(source, at(name), { model: at('original'), dtype: 'float32' })
      assert.deepEqual(await weights(at(name)), await weights(at('tuned')))
    }
  }) // biome-ignore format: one line a way

  it('merges whole modules, a trained base weight with its LoRA, and tied embeddings', async () => {
    const only = ['embed_tokens', 'multi_modal_projector', 'layers.0.self_attn.q_proj']
    await tuned('all', {}, { train: { only } })
    await merge(at('all'), at('all-merged'), { dtype: 'float32' })
    assert.deepEqual(await weights(at('all-merged')), await weights(at('all')))
  })

  it('modules trained beside LoRA are in the adapter, or a warning before the first step says that PEFT cannot hold them', async () => {
    const warnings: string[] = []
    const onWarning = (message: string) => void warnings.push(message)
    await tuned('beside', { onWarning }, { train: { only: ['multi_modal_projector', 'language_model.norm'] } })
    const [result, beside] = [await weights(at('beside')), await weights(undefined, { adapter: at('beside', 'adapter') })]
    assert.deepEqual(beside, result)
    assert.notDeepEqual(result.get('model.language_model.norm.weight'), (await weights(at('tuned'))).get('model.language_model.norm.weight')) // biome-ignore format: one line
    assert.deepEqual(warnings, [])
    await tuned('apart', { onWarning, resume: true }, { train: { only: ['layers.0.self_attn.q_proj'] } })
    assert.match(warnings.join('\n'), /no checkpoint to resume from[\s\S]*only the merged model will be written, without an adapter: .*contains LoRA/) // biome-ignore format: one line
    assert.deepEqual([await isThere(at('apart', 'config.json')), await isThere(at('apart', 'adapter'))], [true, false])
  })

  it('an adapter names its base model, so that the model need not be given', async () => {
    const { base_model_name_or_path: base } = JSON.parse(await readFile(at('tuned', 'adapter', 'adapter_config.json'), 'utf8'))
    assert.equal(base, demoModel)
    assert.equal(await using(undefined, { adapter: at('tuned', 'adapter') }, ({ dir }) => dir), base)
  })

  it('an adapter works with quantized weights', async () => {
    const [adapter, quantize] = [at('tuned', 'adapter'), 'int8'] as const
    const whole = await logits(at('tuned'))
    const [beside, without] = [await logits(undefined, { adapter, quantize }), await logits(undefined, { quantize })]
    assert.ok(
      distance(beside, whole) < 0.25 * distance(without, whole),
      `${distance(beside, whole)} of ${distance(without, whole)}`
    )
  })

  it('a stopped run writes no result; its checkpoint can be merged, and the run resumes', async () => {
    const controller = new AbortController()
    const callbacks = [{ onStepEnd: () => controller.abort() }]
    assert.equal(await tuned('stopped', { callbacks, signal: controller.signal }), false)
    assert.deepEqual([await isThere(at('stopped', 'config.json')), await isThere(at('stopped', 'adapter'))], [false, false])
    await mergeCommand().parseAsync([at('stopped', 'checkpoints', 'step-0000001'), at('half')], { from: 'user' })
    assert.ok(await isThere(at('half', 'model.safetensors')))
    assert.equal(await tuned('stopped', { resume: true }), true)
    assert.deepEqual(await weights(at('stopped')), await weights(at('tuned')))
  })

  it('reports a mismatch and writes nothing', async () => {
    const adapter = at('tuned', 'adapter')
    const other = at('other')
    const config = JSON.parse(await readFile(join(adapter, 'adapter_config.json'), 'utf8'))
    await merge(adapter, other)
    await writeFile(join(other, 'adapter_config.json'), JSON.stringify({ ...config, r: 3 }))
    const refused = (source: string, target: string, message: RegExp, model?: string) =>
      assert.rejects(merge(source, target, { model }), message)
    await refused(other, at('x'), /adapter_model.safetensors/)
    await refused(adapter, other, /other: the folder is not empty/)
    await refused(adapter, adapter, /adapter: the target is the source folder/)
    await refused(at('nowhere'), at('x'), /nowhere: no such folder; give a PEFT adapter/)
    await refused(folder, at('x'), /neither adapter_config.json nor checkpoints/)
    await refused(adapter, at('x'), /missing-model: no such folder/, at('missing-model'))
    assert.equal(await isThere(at('x')), false)
    await writeFile(join(adapter, 'adapter_config.json'), JSON.stringify({ ...config, r: 3 }))
    await assert.rejects(
      load(undefined, { adapter }),
      /this adapter is not for this model; it was made for .*\n.*expected shape \[3,/
    )
    await writeFile(join(adapter, 'adapter_config.json'), JSON.stringify(config))
  })
})
