import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type InternVLCheckpoint, type LoadOptions, load } from '../../../generation/checkpoint/load.js'
import { replaceParts } from '../../../generation/checkpoint/replace-parts.js'
import { convert, save } from '../../../generation/checkpoint/save.js'
import { loadVisionEncoder } from '../../../generation/embed.js'
import { createEngine } from '../../../generation/engine/create-engine.js'
import { InternVLError } from '../../../lib/error.js'
import { module } from '../../../lib/module.js'
import { linear } from '../../../lib/nn/linear.js'
import { tf } from '../../../lib/tf.js'
import type { PartFamily } from '../../../models/config/model-config.js'
import { inFolder, readJson } from '../../models/folders.js'

const projectorPath = 'model.multi_modal_projector'

/** A projector of two linear layers with a narrow middle, `[T, N, 4 Dv] → [T, N, D]`. */
const bottleneck: PartFamily = {
  type: 'bottleneck',
  build: ({ visionConfig, textConfig }, { width }) =>
    module(
      { down: linear(visionConfig.hiddenSize * 4, Number(width)), up: linear(Number(width), textConfig.hiddenSize) },
      (self) =>
        (x: tf.Tensor3D): tf.Tensor3D =>
          self.up(tf.relu(self.down(x)))
    )
}
/** An MLP that returns zeros: the layer's residual alone is left. */
const noMlp: PartFamily = { type: 'no-mlp', build: () => module({}, () => (x: tf.Tensor) => tf.zerosLike(x)) }

const features = ({ model, config }: InternVLCheckpoint): Float32Array => {
  const [H, W] = config.visionConfig.imageSize
  return tf.tidy(
    () =>
      model
        .imageFeatures(
          tf
            .range(0, 3 * H * W)
            .mul(0.37)
            .sin()
            .reshape([1, 3, H, W])
        )
        .dataSync() as Float32Array
  )
}

const messageOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => assert.fail('it should have failed'),
    (error) => {
      assert.ok(error instanceof InternVLError, String(error))
      return error.message
    }
  )

/** A demo model with other modules, saved; and its image features. */
const saveReplaced = async (folder: string): Promise<Float32Array> => {
  const demo = await load()
  const changed = replaceParts(
    demo,
    {
      [projectorPath]: { part: bottleneck, settings: { width: 6 } },
      'model.vision_tower.encoder.layer.1.mlp': { part: noMlp }
    },
    { seed: 4 }
  )
  const { config, params } = changed
  await save(folder, { config, params, processorFilesFrom: demo.dir })
  const before = features(changed)
  assert.notDeepEqual(before, features(demo))
  changed.dispose()
  assert.ok(features(demo).length > 0) // its parameters are still there
  demo.dispose()
  return before
}

describe('custom parts', () => {
  it('survive saving, loading and converting, and the vision encoder alone has them', () =>
    inFolder(async (folder) => {
      const [dir, half] = [join(folder, 'saved'), join(folder, 'half')]
      const before = await saveReplaced(dir)
      assert.deepEqual((await readJson(dir)).custom_parts, {
        [projectorPath]: { type: 'bottleneck', width: 6 },
        'model.vision_tower.encoder.layer.1.mlp': { type: 'no-mlp' }
      })
      const parts = [noMlp, bottleneck]
      await convert(dir, half, { layout: 'hf', dtype: 'float32', parts })
      for (const from of [dir, half]) {
        const again = await load(from, { parts })
        assert.deepEqual(features(again), before)
        again.dispose()
      }
      const vision = await loadVisionEncoder(dir, { parts })
      const [H, W] = vision.config.visionConfig.imageSize
      const alone = tf.tidy(() =>
        vision.encoder
          .features(
            tf
              .range(0, 3 * H * W)
              .mul(0.37)
              .sin()
              .reshape([1, 3, H, W])
          )
          .dataSync()
      )
      assert.deepEqual(alone, before)
      vision.dispose()
    }))

  it('come from a JavaScript module too', () =>
    inFolder(async (folder) => {
      const [dir, file] = [join(folder, 'saved'), join(folder, 'parts.mjs')]
      const demo = await load()
      const changed = replaceParts(demo, { 'model.vision_tower.encoder.layer.1.mlp': { part: noMlp } })
      await save(dir, { config: changed.config, params: changed.params, processorFilesFrom: demo.dir })
      const before = features(changed)
      const lib = new URL('../../../lib/index.ts', import.meta.url).href
      const source = `import { module, tf } from ${JSON.stringify(lib)}\nexport default { type: 'no-mlp', build: () => module({}, () => (x) => tf.zerosLike(x)) }\n`
      await writeFile(file, source)
      const again = await load(dir, { parts: file })
      assert.deepEqual(features(again), before)
      for (const owner of [again, changed, demo]) owner.dispose()
      const engine = await createEngine(dir, { parts: file }) // its process imports the module
      await engine.close()
      await writeFile(join(folder, 'bad.mjs'), 'export default 3\n')
      const refused = (parts: LoadOptions['parts']) =>
        messageOf(load(dir, { parts })).then((text) => text.replaceAll(folder, 'F'))
      assert.equal(
        await refused(join(folder, 'bad.mjs')),
        'F/bad.mjs: its default export should be { type, build } or a list of them'
      )
      assert.match(await refused(join(folder, 'none.mjs')), /^F\/none\.mjs: it cannot be imported \(/)
    }))

  it('that are not given, of a path without a module, or for the original layout are refused by name', () =>
    inFolder(async (folder) => {
      const dir = join(folder, 'saved')
      await saveReplaced(dir)
      const unknown = await messageOf(load(dir, { parts: [noMlp] }))
      assert.match(
        unknown,
        /saved\/config\.json: custom_parts: model\.multi_modal_projector is "bottleneck", a module of the program/
      )
      assert.match(unknown, /give the module with --parts \(parts: \[\{ type: "bottleneck", build \}\]\)$/)
      const original = convert(dir, join(folder, 'original'), { layout: 'original', parts: [noMlp, bottleneck] })
      assert.match(await messageOf(original), /custom_parts is .*; the original layout has only the model's own parts/)
      const demo = await load()
      assert.throws(
        () => replaceParts(demo, { 'model.projector': { part: noMlp } }),
        /replaceModules: no module at model\.projector; paths are those of the checkpoint's keys/
      )
      demo.dispose()
      await writeFile(
        join(dir, 'config.json'),
        JSON.stringify({ ...(await readJson(dir)), custom_parts: { [projectorPath]: 3 } })
      )
      assert.match(
        await messageOf(load(dir)),
        /custom_parts should be an object with a "type" for each path; that of model\.multi_modal_projector has none/
      )
    }))
})
